"""Which configuration next. `base` has the protocol, `catalogue` what there is, `factory` makes one."""
