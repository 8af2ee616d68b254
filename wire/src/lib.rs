//! Remora's protocols without I/O: bytes in, events out, and back.
