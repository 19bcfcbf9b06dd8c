//! Pages of lists that begin with the newest row.

use jiff::Timestamp;
use octroi_core::AccountId;
use octroi_kit::page::InvalidPageToken;
use uuid::Uuid;

use super::Service;
use crate::{
    domain::{Email, Notice},
    error::Error,
    store::Cursor,
};

/// A list, page by page. A token of one list, or of one account, goes on with no other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paging<'a> {
    /// The name of the list.
    pub(super) list: &'a str,
    /// Whose.
    pub(super) account: &'a AccountId,
    /// How many rows a page has at most.
    pub(super) size: i64,
}

/// What stands at a place in a list.
pub(super) trait Placed {
    /// The place.
    fn cursor(&self) -> Cursor;
}

impl Placed for Notice {
    fn cursor(&self) -> Cursor {
        Cursor {
            created_at: self.created_at,
            id: self.id,
        }
    }
}

impl Placed for Email {
    fn cursor(&self) -> Cursor {
        Cursor {
            created_at: self.created_at,
            id: self.id,
        }
    }
}

impl Paging<'_> {
    /// How many rows are looked for: one more than the page has says whether there is a next page.
    pub(super) fn looked_for(&self) -> i64 {
        self.size + 1
    }
}

impl Service {
    /// Where the page of this token begins; none for the first.
    pub(super) fn page_begin(&self, paging: Paging<'_>, token: &str) -> Result<Option<Cursor>, Error> {
        let Some(text) = self.pages.read(paging.list, paging.account.as_str(), token)? else {
            return Ok(None);
        };
        Ok(Some(parse_cursor(&text).ok_or(InvalidPageToken)?))
    }

    /// Cuts what was looked for down to the page, to `fitting` rows where that is less, and answers with
    /// the token of the next; empty at the end.
    pub(super) fn page_end<T: Placed>(
        &self,
        paging: Paging<'_>,
        rows: &mut Vec<T>,
        fitting: usize,
    ) -> String {
        let size = usize::try_from(paging.size).unwrap_or(usize::MAX).min(fitting);
        let more = rows.len() > size;
        rows.truncate(size);
        match rows.last() {
            Some(last) if more => {
                let Cursor { created_at, id } = last.cursor();
                let cursor = format!("{}.{}", created_at.as_microsecond(), id.simple());
                self.pages.make(paging.list, paging.account.as_str(), &cursor)
            }
            _ => String::new(),
        }
    }
}

fn parse_cursor(text: &str) -> Option<Cursor> {
    let (created_at, id) = text.split_once('.')?;
    let created_at = Timestamp::from_microsecond(created_at.parse().ok()?).ok()?;
    Some(Cursor {
        created_at,
        id: Uuid::try_parse(id).ok()?,
    })
}
