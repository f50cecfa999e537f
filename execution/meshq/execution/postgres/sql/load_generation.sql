SELECT generation::text, first_epoch FROM generations
