"""One Lua script per operation of a shard; `meshq.execution.ring.scripts` reads them."""
