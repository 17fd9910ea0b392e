//! hot: see lib.rs.
