//! The contracts of the fleet: one module a package, as generated, and what every user of them needs:
//! the descriptors that reflection serves, the routing key of each event, the name of each error reason.

pub mod event;
mod reason;

pub use reason::REASON_DOMAIN;

/// The file descriptor set of every contract, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/octroi.binpb"));

macro_rules! package {
    ($($(#[$doc:meta])* $name:ident => $package:literal),* $(,)?) => {$(
        $(#[$doc])*
        pub mod $name {
            /// Version 1 of the contract.
            pub mod v1 {
                tonic::include_proto!($package);
            }
        }
    )*};
}

package! {
    /// `octroi.account`.
    account => "octroi.account.v1",
    /// `octroi.billing`.
    billing => "octroi.billing.v1",
    /// `octroi.common`.
    common => "octroi.common.v1",
    /// `octroi.errors`.
    errors => "octroi.errors.v1",
    /// `octroi.events`.
    events => "octroi.events.v1",
    /// `octroi.notification`.
    notification => "octroi.notification.v1",
    /// `octroi.quota`.
    quota => "octroi.quota.v1",
    /// `octroi.usage`.
    usage => "octroi.usage.v1",
}
