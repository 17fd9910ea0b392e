//! The fill engine between real hot tiers and sources that count, stall and fail.
//!
//! One binary for all of its suites: linking the database once is most of the build.

mod support;

#[path = "fill/ahead.rs"]
mod ahead;
#[path = "fill/cancel.rs"]
mod cancel;
#[path = "fill/faults.rs"]
mod faults;
#[path = "fill/flight.rs"]
mod flight;
#[path = "fill/random.rs"]
mod random;
#[path = "fill/world.rs"]
mod world;
