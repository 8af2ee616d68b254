//! Makes wire/src/native/proto.rs from wire/proto/remora.proto.
