//! Accept, authenticate, decide, dispatch, audit.
