//! Who is let in, for every method and caller.

use prost::Message as _;

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
            tonic::Code::Unauthenticated
        );
        assert_eq!(
            call(&auth, method, Some("guess")).expect_err("bad token").code(),
            tonic::Code::Unauthenticated
        );
    }
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
