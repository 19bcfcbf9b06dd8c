//! Who is let in, for every method and caller.

use prost::Message as _;
use tonic::Code;

use super::*;

fn auth() -> Auth {
    let dir = tempfile::tempdir().expect("a writable temporary directory");
    let dir = dir.path();
    mint(dir).expect("a writable directory");
    let config = config::Auth {
        tokens_dir: dir.to_owned(),
        callers_file: PathBuf::new(),
        principal_secret: Secret::default(),
    };
    Auth::load(&config, dir).expect("what was minted")
}

fn call(auth: &Auth, method: &str, token: Option<&str>) -> Result<Arc<Caller>, Status> {
    let mut request = Request::builder().uri(method);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    auth.authenticate(&request.body(axum::body::Body::empty()).expect("a request"))
}

#[test]
fn every_method_of_the_contracts_is_in_the_table() {
    let set = prost_types::FileDescriptorSet::decode(octroi_proto::FILE_DESCRIPTOR_SET).expect("descriptors");
    let mut methods = Vec::new();
    for file in &set.file {
        for service in &file.service {
            for method in &service.method {
                methods.push(format!(
                    "/{}.{}/{}",
                    file.package(),
                    service.name(),
                    method.name()
                ));
            }
        }
    }
    methods.sort();
    let mut listed: Vec<String> = TABLE.iter().map(|(method, _)| (*method).to_owned()).collect();
    listed.sort();
    assert_eq!(listed, methods);
}

#[test]
fn the_table_decides_for_every_method_and_caller() {
    let auth = auth();
    for (method, roles) in TABLE {
        for (name, role) in STANDARD_CALLERS {
            let token = auth.token_of(name).expect("a token");
            let answer = call(&auth, method, Some(token.expose()));
            assert_eq!(answer.is_ok(), roles.contains(&role), "{name} calls {method}");
        }
        assert_eq!(
            call(&auth, method, None).expect_err("no token").code(),
            Code::Unauthenticated
        );
        assert_eq!(
            call(&auth, method, Some("guess")).expect_err("bad token").code(),
            Code::Unauthenticated
        );
    }
}

/// Written by hand, beside the table, so that a slip there is seen here.
#[test]
fn what_must_not_leave_its_owner_does_not() {
    let everybody: Vec<&str> = STANDARD_CALLERS.iter().map(|(name, _)| *name).collect();
    let auth = auth();
    for (method, may) in [
        (
            "/octroi.quota.v1.QuotaService/ApplyEntitlements",
            &["billing"][..],
        ),
        ("/octroi.quota.v1.QuotaService/ApplyCatalog", &["billing"]),
        ("/octroi.usage.v1.UsageService/ApplyCatalog", &["billing"]),
        ("/octroi.billing.v1.BillingService/ApplyCatalog", &["operator"]),
        (
            "/octroi.usage.v1.UsageService/GetLedgerTotals",
            &["quota", "billing", "operator"],
        ),
        ("/octroi.account.v1.AccountService/SignIn", &["gateway"]),
        ("/octroi.account.v1.AccountService/VerifyApiKey", &["gateway"]),
    ] {
        for name in &everybody {
            let token = auth.token_of(name).expect("a token");
            let code =
                call(&auth, method, Some(token.expose())).map_or_else(|status| status.code(), |_| Code::Ok);
            let expected = if may.contains(name) {
                Code::Ok
            } else {
                Code::PermissionDenied
            };
            assert_eq!(code, expected, "{name} calls {method}");
        }
    }
}

#[test]
fn what_is_not_in_the_table_is_refused_to_everybody() {
    let auth = auth();
    for path in [
        "/octroi.quota.v1.QuotaService/NoSuchMethod",
        "/octroi.quota.v1.QuotaService/checkquota",
        "/octroi.quota.v1.QuotaService/CheckQuota/",
        "/grpc.health.v1.Health/Check",
        "/",
    ] {
        for (name, _) in STANDARD_CALLERS {
            let token = auth.token_of(name).expect("a token");
            let status = call(&auth, path, Some(token.expose())).expect_err(path);
            assert_eq!(status.code(), Code::Unimplemented, "{name} calls {path}");
        }
        let status = call(&auth, path, None).expect_err("no token");
        assert_eq!(status.code(), Code::Unauthenticated, "{path}");
    }
}

#[test]
fn the_scheme_of_a_token_has_no_case() {
    let auth = auth();
    let token = auth.token_of("operator").expect("a token");
    let token = token.expose();
    let answer = |header: String| {
        let request = Request::builder()
            .uri("/octroi.billing.v1.BillingService/CheckCatalog")
            .header("authorization", header);
        auth.authenticate(&request.body(axum::body::Body::empty()).expect("a request"))
            .is_ok()
    };
    for scheme in ["Bearer", "bearer", "BEARER"] {
        assert!(answer(format!("{scheme} {token}")), "{scheme}");
    }
    for scheme in ["Basic", "Bearer:", "Bear", ""] {
        assert!(!answer(format!("{scheme} {token}")), "{scheme}");
    }
    assert!(!answer(token.to_owned()) && !answer(format!("Bearer{token}")) && !answer("Bearer".to_owned()));
}

#[test]
fn a_principal_cannot_be_forged() {
    let auth = auth();
    let principal = Principal {
        account: AccountId::parse("acme").expect("an id"),
        actor: "member-1".into(),
    };
    let header = auth.sign_principal(&principal);
    assert_eq!(auth.verify_principal(&header), Some(principal));
    assert_eq!(auth.verify_principal(&header.replace("acme", "evil")), None);
    assert_eq!(auth.verify_principal("acme|member-1|00"), None);
    assert_eq!(auth.verify_principal(""), None);
}
