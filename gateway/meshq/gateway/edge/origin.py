"""What a call is told about its way: that it passed the edge with a request id made there."""

from __future__ import annotations

from typing import Final

from envoy.config.common.mutation_rules.v3 import mutation_rules_pb2
from envoy.config.core.v3 import base_pb2, extension_pb2
from envoy.extensions.http.early_header_mutation.header_mutation.v3 import header_mutation_pb2

from meshq.contract.metadata import EDGE, REQUEST_ID
from meshq.contract.status import packed

ORIGINAL_PATH: Final = "x-envoy-original-path"
"""Set by the transcoder on what was a REST call."""

_MADE_HERE: Final = f"%CEL('{REQUEST_ID}' in request.headers ? '' : '1')%"


def call_origin() -> extension_pb2.TypedExtensionConfig:
    """Take away what only the edge may say, and mark the calls whose request id it makes.

    Servers take such an id for a missing `request_id`, because it is new for each call and stays the
    same over the edge's retries. An id that the caller brought is kept for the logs, but it must not
    count: programs pass one id on with everything they do for one request of their own.
    """
    mutation = mutation_rules_pb2.HeaderMutation
    return extension_pb2.TypedExtensionConfig(
        name="envoy.http.early_header_mutation.header_mutation",
        typed_config=packed(
            header_mutation_pb2.HeaderMutation(
                mutations=[
                    mutation(remove=ORIGINAL_PATH),
                    mutation(remove=EDGE),
                    mutation(
                        append=base_pb2.HeaderValueOption(
                            header=base_pb2.HeaderValue(key=EDGE, value=_MADE_HERE),
                            append_action=base_pb2.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD,
                        )
                    ),
                ]
            )
        ),
    )
