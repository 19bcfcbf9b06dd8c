//! Small worlds with every rule, each searched to its end.

mod calls;
mod holds;
mod limits;
mod requests;

use crate::config::{Wish, consume};

/// A request for one unit, which is what most of these want.
const UNIT: Wish = consume(1);
