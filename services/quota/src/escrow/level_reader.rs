//! Reads what windows have granted. Those who ask at the same time are answered by one transaction.

use std::collections::{BTreeSet, HashMap, HashSet};

use octroi_core::{AccountId, SliceId};
use octroi_kit::{
    db::{DatabaseError, Db, Scope},
    gather::{Bounds, Gather},
};

use crate::{
    domain::{carve::Granted, window::WindowKey},
    error::Error,
    store::{self, AccountWindow},
};

/// Transactions that run at the same time, and the accounts of one.
const BOUNDS: Bounds = Bounds {
    batches: 2,
    jobs: 200,
    waiting: 50_000,
};

/// What is asked for.
#[derive(Debug)]
struct Look {
    account: AccountId,
    keys: Vec<WindowKey>,
    slices: HashSet<SliceId>,
}

/// What windows had granted while these of the slices were open.
#[derive(Clone, Debug, Default)]
pub(super) struct Standing {
    /// The windows that are written down.
    pub(super) granted: HashMap<WindowKey, Granted>,
    /// Those of the slices that were named that are not sealed.
    pub(super) open: HashSet<SliceId>,
}

/// Reads windows with slices.
pub(super) struct LevelReader(Gather<Look, Result<Standing, DatabaseError>>);

impl LevelReader {
    pub(super) fn start(db: &Db) -> Self {
        let db = db.clone();
        Self(Gather::start(BOUNDS, move |looks| {
            read_together(db.clone(), looks)
        }))
    }

    /// What windows of an account have granted, and which of `slices` are open: both of one instant.
    ///
    /// # Errors
    /// [`Error`] where they cannot be read now.
    pub(super) async fn read(
        &self,
        account: &AccountId,
        keys: &[WindowKey],
        slices: HashSet<SliceId>,
    ) -> Result<Standing, Error> {
        let look = Look {
            account: account.clone(),
            keys: keys.to_vec(),
            slices,
        };
        Ok(self.0.ask(look).await??)
    }
}

async fn read_together(db: Db, looks: Vec<Look>) -> Vec<Result<Standing, DatabaseError>> {
    let slices: BTreeSet<SliceId> = looks.iter().flat_map(|one| &one.slices).copied().collect();
    let slices: Vec<SliceId> = slices.into_iter().collect();
    let windows: BTreeSet<AccountWindow> = (looks.iter())
        .flat_map(|one| one.keys.iter().map(|key| (one.account.clone(), key.clone())))
        .collect();
    let windows: Vec<AccountWindow> = windows.into_iter().collect();
    let read = db.transaction(Scope::AllAccounts, move |connection| {
        Box::pin(async move {
            if slices.is_empty() {
                return Ok((HashSet::new(), store::find_windows(connection, &windows).await?));
            }
            store::read_one_snapshot(connection).await?;
            let open = store::list_unsealed(connection, &slices).await?;
            let found = store::find_windows(connection, &windows).await?;
            Ok::<_, DatabaseError>((open, found))
        })
    });
    let (open, found) = match read.await {
        Ok(read) => read,
        Err(error) => return looks.iter().map(|_| Err(error.shared())).collect(),
    };
    let answer = |look: Look| {
        let granted = look.keys.into_iter().filter_map(|key| {
            let window = (look.account.clone(), key);
            let granted = found.get(&window).copied()?;
            Some((window.1, granted))
        });
        Standing {
            granted: granted.collect(),
            open: look.slices.intersection(&open).copied().collect(),
        }
    };
    looks.into_iter().map(|look| Ok(answer(look))).collect()
}
