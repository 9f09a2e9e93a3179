"""Families of features, one file each.

A family is a module with

- `FIELDS`: its columns, a tuple of `fields.Field`;
- `STATE`: what it keeps of an open flow, an aligned numpy dtype, as small as can be;
- `update(state, flow, packet, forward)`: a kernel that adds one packet. `flow` (a `flow_state.FLOW` record) still
  describes the packets before it; `forward` is True for the initiator's packets;
- `features(states, flows)`: plain numpy over finished rows, `STATE[n]` and `FLOW[n]`; yields `(name, values)` for each
  of `FIELDS`, in order. Values are an array, a masked array where some are null, an Arrow array, or None where all are
  null;
- perhaps `initial(settings)`: the `STATE` of a flow before its first packet, where zeros will not do.
"""
