//! The rules of billing: pure and synchronous, over plain data.

pub mod billing_period;
pub mod catalog;
pub mod currency;
pub mod invoice;
pub mod price;
pub mod rating;
pub mod subscription;
