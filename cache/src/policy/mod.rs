//! policy: see lib.rs.
