//! live: see lib.rs.
