//! The gRPC side: reads a request, calls the service, writes the answer.

use octroi_core::Violations;
use octroi_kit::{
    auth::{self, check_principal},
    config::Secret,
    page::{InvalidPageToken, PageTokens, page_size},
    status::to_status,
};
use octroi_proto::account::v1::{self as proto, account_service_server::AccountService};
use tonic::{Request, Response, Status};

use crate::{
    convert,
    domain::{
        api_key::Cursor,
        audit::Actor,
        id::{KeyId, MemberId},
    },
    error::Error,
    service::Service,
};

const MEMBERS_LIST: &str = "members";
const API_KEYS_LIST: &str = "api keys";

/// Serves the contract.
#[derive(Debug)]
pub(crate) struct Handler {
    service: Service,
    pages: PageTokens,
}

impl Handler {
    pub(crate) fn new(service: Service, pages: PageTokens) -> Self {
        Self { service, pages }
    }
}

fn refused(error: impl Into<Error>) -> Status {
    to_status(&error.into())
}

/// Who acts: the calling service, for its principal where there is one.
fn actor<T>(request: &Request<T>) -> Result<Actor, Status> {
    let caller = auth::caller(request)?;
    let on_behalf_of = auth::principal(request).map(|principal| principal.actor.clone());
    Ok(Actor {
        caller: caller.name.clone(),
        on_behalf_of,
    })
}

/// The same, for the member that the request itself names, where it names one.
fn acting_member(actor: Actor, member_id: String) -> Actor {
    if member_id.is_empty() {
        actor
    } else {
        actor.acting_for(member_id)
    }
}

fn rows_of_page(page_size_asked: i32) -> Result<usize, Status> {
    let mut violations = Violations::default();
    let rows = page_size(page_size_asked, &mut violations);
    violations.finish().map_err(refused)?;
    Ok(usize::try_from(rows).unwrap_or(0))
}

/// One row more than a page is asked for, to know whether there is a next one.
fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX).saturating_add(1)
}

/// Cuts the row that is too many; the last one left is where the next page goes on.
fn cut<T>(items: &mut Vec<T>, rows: usize) -> Option<&T> {
    let more = items.len() > rows;
    items.truncate(rows);
    if more { items.last() } else { None }
}

#[tonic::async_trait]
impl AccountService for Handler {
    async fn upsert_account(
        &self,
        request: Request<proto::UpsertAccountRequest>,
    ) -> Result<Response<proto::UpsertAccountResponse>, Status> {
        check_principal(&request, &request.get_ref().account_id)?;
        let actor = actor(&request)?;
        let new = convert::from_proto_upsert(request.get_ref()).map_err(refused)?;
        let now = self.service.now();
        let (account, created) = self
            .service
            .upsert_account(new, actor, now)
            .await
            .map_err(refused)?;
        let account = Some(convert::to_proto_account(&account));
        Ok(Response::new(proto::UpsertAccountResponse { account, created }))
    }

    async fn get_account(
        &self,
        request: Request<proto::GetAccountRequest>,
    ) -> Result<Response<proto::GetAccountResponse>, Status> {
        check_principal(&request, &request.get_ref().account_id)?;
        let account_id = convert::from_proto_account_id(&request.get_ref().account_id).map_err(refused)?;
        let account = self.service.get_account(account_id).await.map_err(refused)?;
        Ok(Response::new(proto::GetAccountResponse {
            account: Some(convert::to_proto_account(&account)),
        }))
    }

    async fn get_account_batch(
        &self,
        request: Request<proto::GetAccountBatchRequest>,
    ) -> Result<Response<proto::GetAccountBatchResponse>, Status> {
        for account_id in &request.get_ref().account_ids {
            check_principal(&request, account_id)?;
        }
        let accounts = convert::from_proto_account_ids(&request.get_ref().account_ids).map_err(refused)?;
        let accounts = self.service.list_accounts(accounts).await.map_err(refused)?;
        Ok(Response::new(proto::GetAccountBatchResponse {
            accounts: accounts.iter().map(convert::to_proto_account).collect(),
        }))
    }

    async fn update_account(
        &self,
        request: Request<proto::UpdateAccountRequest>,
    ) -> Result<Response<proto::UpdateAccountResponse>, Status> {
        check_principal(&request, &request.get_ref().account_id)?;
        let actor = actor(&request)?;
        let (account_id, change) = convert::from_proto_update(request.get_ref()).map_err(refused)?;
        let now = self.service.now();
        let account = self
            .service
            .update_account(account_id, change, actor, now)
            .await
            .map_err(refused)?;
        Ok(Response::new(proto::UpdateAccountResponse {
            account: Some(convert::to_proto_account(&account)),
        }))
    }

    async fn sign_up(
        &self,
        request: Request<proto::SignUpRequest>,
    ) -> Result<Response<proto::SignUpResponse>, Status> {
        let actor = actor(&request)?;
        let sign_up = convert::from_proto_sign_up(request.into_inner()).map_err(refused)?;
        let now = self.service.now();
        let new = self.service.sign_up(sign_up, actor, now).await.map_err(refused)?;
        let session = Some(convert::to_proto_session(&new.session));
        let session_token = new.token.expose().to_owned();
        Ok(Response::new(proto::SignUpResponse {
            session,
            session_token,
        }))
    }

    async fn sign_in(
        &self,
        request: Request<proto::SignInRequest>,
    ) -> Result<Response<proto::SignInResponse>, Status> {
        let actor = actor(&request)?;
        let sign_in = convert::from_proto_sign_in(request.into_inner()).map_err(refused)?;
        let now = self.service.now();
        let new = self.service.sign_in(sign_in, actor, now).await.map_err(refused)?;
        let session = Some(convert::to_proto_session(&new.session));
        let session_token = new.token.expose().to_owned();
        Ok(Response::new(proto::SignInResponse {
            session,
            session_token,
        }))
    }

    async fn sign_out(
        &self,
        request: Request<proto::SignOutRequest>,
    ) -> Result<Response<proto::SignOutResponse>, Status> {
        let actor = actor(&request)?;
        let token = Secret::new(request.into_inner().session_token);
        let now = self.service.now();
        self.service.sign_out(token, actor, now).await.map_err(refused)?;
        Ok(Response::new(proto::SignOutResponse {}))
    }

    async fn get_session(
        &self,
        request: Request<proto::GetSessionRequest>,
    ) -> Result<Response<proto::GetSessionResponse>, Status> {
        let token = Secret::new(request.into_inner().session_token);
        let now = self.service.now();
        let session = self.service.get_session(token, now).await.map_err(refused)?;
        Ok(Response::new(proto::GetSessionResponse {
            session: Some(convert::to_proto_session(&session)),
        }))
    }

    async fn list_members(
        &self,
        request: Request<proto::ListMembersRequest>,
    ) -> Result<Response<proto::ListMembersResponse>, Status> {
        check_principal(&request, &request.get_ref().account_id)?;
        let request = request.into_inner();
        let account_id = convert::from_proto_account_id(&request.account_id).map_err(refused)?;
        let rows = rows_of_page(request.page_size)?;
        let cursor = self
            .pages
            .read(MEMBERS_LIST, &request.account_id, &request.page_token)
            .map_err(refused)?;
        let after = cursor
            .map(|text| MemberId::parse(&text).ok_or(InvalidPageToken))
            .transpose()
            .map_err(refused)?;
        let mut members = self
            .service
            .list_members(account_id, after, limit(rows))
            .await
            .map_err(refused)?;
        let next_page_token = cut(&mut members, rows)
            .map(|last| {
                self.pages
                    .make(MEMBERS_LIST, &request.account_id, last.member_id.as_str())
            })
            .unwrap_or_default();
        let members = members.iter().map(convert::to_proto_member).collect();
        Ok(Response::new(proto::ListMembersResponse {
            members,
            next_page_token,
        }))
    }

    async fn create_api_key(
        &self,
        request: Request<proto::CreateApiKeyRequest>,
    ) -> Result<Response<proto::CreateApiKeyResponse>, Status> {
        check_principal(&request, &request.get_ref().account_id)?;
        let actor = actor(&request)?;
        let new = convert::from_proto_create_api_key(request.get_ref()).map_err(refused)?;
        let actor = acting_member(actor, request.into_inner().member_id);
        let now = self.service.now();
        let (key, secret) = self
            .service
            .create_api_key(new, actor, now)
            .await
            .map_err(refused)?;
        let api_key = Some(convert::to_proto_api_key(&key));
        Ok(Response::new(proto::CreateApiKeyResponse {
            api_key,
            secret: secret.expose().to_owned(),
        }))
    }

    async fn list_api_keys(
        &self,
        request: Request<proto::ListApiKeysRequest>,
    ) -> Result<Response<proto::ListApiKeysResponse>, Status> {
        check_principal(&request, &request.get_ref().account_id)?;
        let request = request.into_inner();
        let account_id = convert::from_proto_account_id(&request.account_id).map_err(refused)?;
        let rows = rows_of_page(request.page_size)?;
        let cursor = self
            .pages
            .read(API_KEYS_LIST, &request.account_id, &request.page_token)
            .map_err(refused)?;
        let after = cursor
            .map(|text| Cursor::parse(&text).ok_or(InvalidPageToken))
            .transpose()
            .map_err(refused)?;
        let mut keys = self
            .service
            .list_api_keys(account_id, after, limit(rows))
            .await
            .map_err(refused)?;
        let next_page_token = cut(&mut keys, rows)
            .map(|last| {
                self.pages
                    .make(API_KEYS_LIST, &request.account_id, &Cursor::after(last).to_text())
            })
            .unwrap_or_default();
        let api_keys = keys.iter().map(convert::to_proto_api_key).collect();
        Ok(Response::new(proto::ListApiKeysResponse {
            api_keys,
            next_page_token,
        }))
    }

    async fn revoke_api_key(
        &self,
        request: Request<proto::RevokeApiKeyRequest>,
    ) -> Result<Response<proto::RevokeApiKeyResponse>, Status> {
        check_principal(&request, &request.get_ref().account_id)?;
        let actor = actor(&request)?;
        let request = request.into_inner();
        let account_id = convert::from_proto_account_id(&request.account_id).map_err(refused)?;
        let key_id = KeyId::parse(&request.key_id).ok_or_else(|| refused(Error::ApiKeyNotFound(None)))?;
        let actor = acting_member(actor, request.member_id);
        let now = self.service.now();
        let key = self
            .service
            .revoke_api_key(account_id, key_id, actor, now)
            .await
            .map_err(refused)?;
        Ok(Response::new(proto::RevokeApiKeyResponse {
            api_key: Some(convert::to_proto_api_key(&key)),
        }))
    }

    async fn verify_api_key(
        &self,
        request: Request<proto::VerifyApiKeyRequest>,
    ) -> Result<Response<proto::VerifyApiKeyResponse>, Status> {
        let secret = Secret::new(request.into_inner().secret);
        let key = self.service.verify_api_key(secret).await.map_err(refused)?;
        Ok(Response::new(proto::VerifyApiKeyResponse {
            api_key: Some(convert::to_proto_api_key(&key)),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_cut_where_one_row_more_was_found() {
        let check = |found: usize, rows: usize, left: usize, last: Option<usize>| {
            let mut items: Vec<usize> = (0..found).collect();
            assert_eq!(cut(&mut items, rows).copied(), last);
            assert_eq!(items.len(), left);
        };
        check(0, 50, 0, None);
        check(50, 50, 50, None);
        check(51, 50, 50, Some(49));
    }
}
