//! Who may call what, over the wire.

use anyhow::{Context, Result, ensure};
use octroi_kit::auth::{STANDARD_CALLERS, TABLE};
use octroi_proto::{
    account::v1::{
        CreateApiKeyRequest, GetAccountBatchRequest, GetAccountRequest, SignInRequest, VerifyApiKeyRequest,
    },
    billing::v1 as billing,
    errors::v1::ErrorReason,
    notification::v1::ListEmailsRequest,
    quota::v1 as quota,
    usage::v1::GetLedgerTotalsRequest,
};
use octroi_tests::harness::fleet::{APPLICATION, Clients, Fleet};
use tonic::{Code, Response, Status, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1alpha::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::{
    asks::{Refusal, check_refusal, invalid, refusal, refused, upsert_account},
    story::both_topologies,
};

both_topologies!(
    nobody_calls_without_a_token,
    every_caller_has_only_its_methods,
    health_and_reflection_ask_for_no_token,
    accounts_are_read_together,
);

const NO_CALLER: Refusal = refusal(Code::Unauthenticated, ErrorReason::TokenInvalid);

async fn accounts_are_read_together(fleet: &mut Fleet) -> Result<()> {
    let app = fleet.clients(APPLICATION)?;
    for account in ["acme", "globex"] {
        upsert_account(&app, account).await?;
    }
    let ask = async |account_ids: Vec<String>| {
        let request = GetAccountBatchRequest { account_ids };
        app.account.clone().get_account_batch(request).await
    };
    let named = ["globex", "nobody", "acme", "acme"].map(str::to_owned);
    let found = ask(named.to_vec()).await?.into_inner().accounts;
    let mut found: Vec<&str> = found.iter().map(|account| account.account_id.as_str()).collect();
    found.sort_unstable();
    ensure!(found == ["acme", "globex"], "{found:?}");
    check_refusal("none", ask(Vec::new()).await, invalid("account_ids"))?;
    let many = vec!["acme".to_owned(); 1_001];
    check_refusal("too many", ask(many).await, invalid("account_ids"))?;
    let bad = vec!["acme".to_owned(), "a b".to_owned()];
    check_refusal("no id", ask(bad).await, invalid("account_ids[1]"))
}

async fn nobody_calls_without_a_token(fleet: &mut Fleet) -> Result<()> {
    let address = format!("http://{}", fleet.address("account"));
    let channel = Channel::from_shared(address)?.connect().await?;
    let mut nobody = octroi_proto::account::v1::account_service_client::AccountServiceClient::new(channel);
    let ask = || GetAccountRequest {
        account_id: "acme".to_owned(),
    };
    let answer = nobody.get_account(ask()).await;
    check_refusal("no token", answer, NO_CALLER)?;
    let mut request = tonic::Request::new(ask());
    let token = std::fs::read_to_string(fleet.token_file(APPLICATION))?;
    request
        .metadata_mut()
        .insert("authorization", format!("Basic {}", token.trim()).parse()?);
    let answer = nobody.get_account(request).await;
    check_refusal("another scheme", answer, NO_CALLER)?;
    for token in ["", "guess", &"0".repeat(64)] {
        let mut stranger = fleet.clients_with(token)?;
        let answer = stranger.account.get_account(ask()).await;
        check_refusal("unknown token", answer, NO_CALLER)?;
    }
    // A principal that nobody signed is no principal, whoever sends it.
    let mut request = tonic::Request::new(ask());
    request
        .metadata_mut()
        .insert("octroi-principal", "acme|eve|00".parse()?);
    let answer = fleet.clients(APPLICATION)?.account.get_account(request).await;
    check_refusal("a forged principal", answer, NO_CALLER)
}

/// Asks one method of each service as this caller. What comes of it beyond "may not" does not matter.
async fn ask(method: &str, clients: &mut Clients) -> Result<Result<Response<()>, Status>> {
    fn empty<T>(answer: Result<Response<T>, Status>) -> Result<Response<()>, Status> {
        answer.map(|_| Response::new(()))
    }
    let name = method.rsplit_once("octroi.").map_or(method, |(_, name)| name);
    Ok(match name {
        "account.v1.AccountService/SignIn" => empty(clients.account.sign_in(SignInRequest::default()).await),
        "account.v1.AccountService/CreateApiKey" => empty(
            clients
                .account
                .create_api_key(CreateApiKeyRequest::default())
                .await,
        ),
        "account.v1.AccountService/VerifyApiKey" => empty(
            clients
                .account
                .verify_api_key(VerifyApiKeyRequest::default())
                .await,
        ),
        "usage.v1.UsageService/GetLedgerTotals" => empty(
            clients
                .usage
                .get_ledger_totals(GetLedgerTotalsRequest::default())
                .await,
        ),
        "quota.v1.QuotaService/CheckQuota" => empty(
            clients
                .quota
                .check_quota(quota::CheckQuotaRequest::default())
                .await,
        ),
        "quota.v1.QuotaService/ApplyEntitlements" => empty(
            clients
                .quota
                .apply_entitlements(quota::ApplyEntitlementsRequest::default())
                .await,
        ),
        "billing.v1.BillingService/ApplyCatalog" => empty(
            clients
                .billing
                .apply_catalog(billing::ApplyCatalogRequest::default())
                .await,
        ),
        "notification.v1.NotificationService/ListEmails" => empty(
            clients
                .notification
                .list_emails(ListEmailsRequest::default())
                .await,
        ),
        _ => anyhow::bail!("this story does not ask {method}"),
    })
}

const ASKED: [&str; 8] = [
    "/octroi.account.v1.AccountService/SignIn",
    "/octroi.account.v1.AccountService/CreateApiKey",
    "/octroi.account.v1.AccountService/VerifyApiKey",
    "/octroi.usage.v1.UsageService/GetLedgerTotals",
    "/octroi.quota.v1.QuotaService/CheckQuota",
    "/octroi.quota.v1.QuotaService/ApplyEntitlements",
    "/octroi.billing.v1.BillingService/ApplyCatalog",
    "/octroi.notification.v1.NotificationService/ListEmails",
];

async fn every_caller_has_only_its_methods(fleet: &mut Fleet) -> Result<()> {
    for (caller, role) in STANDARD_CALLERS {
        let mut clients = fleet.clients(caller)?;
        for method in ASKED {
            let (_, roles) = TABLE
                .iter()
                .find(|(name, _)| *name == method)
                .context("a method without a line")?;
            let refused = refused(ask(method, &mut clients).await?)
                .with_context(|| format!("{caller} calls {method}"))?;
            let forbidden = refused.reason == "CALLER_FORBIDDEN" && refused.code == Code::PermissionDenied;
            ensure!(
                forbidden != roles.contains(&role),
                "{caller} calls {method}: {refused:?}"
            );
        }
    }
    Ok(())
}

async fn health_and_reflection_ask_for_no_token(fleet: &mut Fleet) -> Result<()> {
    for (service, name) in [
        ("account", "octroi.account.v1.AccountService"),
        ("usage", "octroi.usage.v1.UsageService"),
        ("quota", "octroi.quota.v1.QuotaService"),
        ("billing", "octroi.billing.v1.BillingService"),
        ("notification", "octroi.notification.v1.NotificationService"),
    ] {
        let address = format!("http://{}", fleet.address(service));
        let channel = Channel::from_shared(address)?.connect().await?;
        let request = HealthCheckRequest {
            service: name.to_owned(),
        };
        let health = HealthClient::new(channel.clone())
            .check(request)
            .await?
            .into_inner();
        ensure!(health.status() == ServingStatus::Serving, "{name}: {health:?}");

        let question = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::ListServices(String::new())),
        };
        let mut reflection = ServerReflectionClient::new(channel);
        let mut answers = reflection
            .server_reflection_info(tokio_stream::once(question))
            .await?
            .into_inner();
        let answer = answers
            .message()
            .await?
            .and_then(|answer| answer.message_response);
        let Some(MessageResponse::ListServicesResponse(list)) = answer else {
            anyhow::bail!("{service} does not list its services: {answer:?}")
        };
        ensure!(
            list.service.iter().any(|one| one.name == name),
            "{name} is not among {list:?}"
        );
    }
    Ok(())
}
