//! What the account service is asked: how an account is written to, and who owns it.

use std::sync::Arc;

use octroi_core::AccountId;
use octroi_kit::{
    directory::{Account, Directory, DirectoryError},
    link::Link,
    status::Upstream,
};
use octroi_proto::account::v1::{ListMembersRequest, Role, account_service_client::AccountServiceClient};

use crate::{convert::from_proto_language, domain::Language};

/// The members of a page.
const PAGE_SIZE: i32 = 100;
/// The most pages of members that are looked through for owners.
const PAGES_MAX: usize = 50;
/// The most owners of one account who are written to.
const OWNERS_MAX: usize = 100;

/// The account service, as this one sees it. Cloning shares what is remembered.
#[derive(Clone, Debug)]
pub struct Accounts {
    directory: Directory,
    client: AccountServiceClient<Link>,
}

/// A member who is written to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The member's id.
    pub member_id: String,
    /// The address, as it was given.
    pub email: String,
    /// The member's language; none where they did not say.
    pub language: Option<Language>,
}

impl Accounts {
    /// Over a link to the account service.
    #[must_use]
    pub fn new(account: &Link) -> Self {
        Self {
            directory: Directory::new(account.clone()),
            client: AccountServiceClient::new(account.clone()),
        }
    }

    /// The account, where it exists and is open.
    ///
    /// # Errors
    /// [`DirectoryError`].
    pub async fn get(&self, account: &AccountId) -> Result<Arc<Account>, DirectoryError> {
        self.directory.get(account).await
    }

    /// Everybody who owns the account.
    ///
    /// # Errors
    /// [`DirectoryError`].
    pub async fn owners(&self, account: &AccountId) -> Result<Vec<Owner>, DirectoryError> {
        let mut owners = Vec::new();
        let mut page_token = String::new();
        for _ in 0..PAGES_MAX {
            let request = ListMembersRequest {
                account_id: account.to_string(),
                page_size: PAGE_SIZE,
                page_token,
            };
            let answer = self.client.clone().list_members(request).await;
            let page = answer
                .map_err(|status| Upstream::new("account", status))?
                .into_inner();
            owners.extend(
                page.members
                    .into_iter()
                    .filter(|member| member.role() == Role::Owner)
                    .map(|member| Owner {
                        language: from_proto_language(member.language()),
                        member_id: member.member_id,
                        email: member.email,
                    }),
            );
            page_token = page.next_page_token;
            if page_token.is_empty() || owners.len() >= OWNERS_MAX {
                break;
            }
        }
        owners.truncate(OWNERS_MAX);
        Ok(owners)
    }
}
