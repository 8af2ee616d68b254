//! Runs one native connection on tokio and rustls, for both ends, over any byte stream.
