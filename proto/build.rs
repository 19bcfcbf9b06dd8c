//! Compiles the contracts with protox, so that nobody needs protoc.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

/// Every contract, relative to this folder.
const FILES: &[&str] = &[
    "octroi/account/v1/account_service.proto",
    "octroi/billing/v1/billing_service.proto",
    "octroi/common/v1/anomaly.proto",
    "octroi/common/v1/catalog.proto",
    "octroi/common/v1/money.proto",
    "octroi/errors/v1/error_reason.proto",
    "octroi/events/v1/anomalies.proto",
    "octroi/events/v1/events.proto",
    "octroi/notification/v1/notification_service.proto",
    "octroi/quota/v1/quota_service.proto",
    "octroi/usage/v1/corrections.proto",
    "octroi/usage/v1/reports.proto",
    "octroi/usage/v1/anomalies.proto",
    "octroi/usage/v1/forecast.proto",
    "octroi/usage/v1/usage_service.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=octroi");
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo says where the output goes")?);
    fs::write(out.join("octroi.binpb"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        .compile_fds(descriptors)?;
    Ok(())
}
