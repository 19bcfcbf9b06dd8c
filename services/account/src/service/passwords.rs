//! Hashing of passwords: slow on purpose, so bounded in how much of the machine it takes.
//!
//! Who signs up waits in places of their own and is hashed one at a time, so that a flood of sign-ups takes
//! neither the places nor more than one of the threads of those who sign in.

use std::sync::Arc;

use argon2::{
    Algorithm, Argon2, Params, Version,
    password_hash::{self, PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use octroi_kit::{config::Secret, db::DatabaseError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::secrets;
use crate::{config::PasswordsConfig, error::Error};

const MEMORY_KIB: u32 = 19_456;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Hashes and verifies passwords, a few at a time, on threads of their own.
#[derive(Clone, Debug)]
pub(crate) struct Passwords {
    /// How many may be here to be verified.
    sign_in_places: Arc<Semaphore>,
    /// How many may be here to be made.
    sign_up_places: Arc<Semaphore>,
    /// One of them at a time asks for a thread.
    sign_up_turn: Arc<Semaphore>,
    /// How many are hashed at the same time, whatever for.
    threads: Arc<Semaphore>,
    /// The hash of a password that nobody knows, verified where there is no member, so that the answer
    /// takes as long.
    nobody: Arc<str>,
}

/// The right to have one password verified. Taken before anything else is done for the call.
#[derive(Debug)]
pub(crate) struct SignInPlace(OwnedSemaphorePermit);

/// The right to have one new password hashed. Taken before anything else is done for the call.
#[derive(Debug)]
pub(crate) struct SignUpPlace(OwnedSemaphorePermit);

impl Passwords {
    pub(crate) async fn new(config: PasswordsConfig) -> Result<Self, Error> {
        let passwords = Self {
            sign_in_places: Arc::new(Semaphore::new(config.waiting_max)),
            sign_up_places: Arc::new(Semaphore::new(config.sign_ups_waiting_max)),
            sign_up_turn: Arc::new(Semaphore::new(1)),
            threads: Arc::new(Semaphore::new(config.hashing_at_once)),
            nobody: Arc::from(""),
        };
        let nobody = passwords
            .hash(passwords.sign_up_place()?, secrets::session_token())
            .await?;
        Ok(Self {
            nobody: nobody.into(),
            ..passwords
        })
    }

    /// A place for whoever signs in, or a refusal at once.
    pub(crate) fn sign_in_place(&self) -> Result<SignInPlace, Error> {
        try_enter(&self.sign_in_places).map(SignInPlace)
    }

    /// A place for whoever signs up, or a refusal at once.
    pub(crate) fn sign_up_place(&self) -> Result<SignUpPlace, Error> {
        try_enter(&self.sign_up_places).map(SignUpPlace)
    }

    /// The hash of a password, in PHC form, with a salt of its own.
    pub(crate) async fn hash(&self, place: SignUpPlace, password: Secret) -> Result<String, Error> {
        let turn = enter(&self.sign_up_turn).await?;
        self.on_a_thread((place.0, turn), move || {
            let hash: PasswordHash = argon2()?.hash_password(password.expose().as_bytes())?;
            Ok(hash.to_string())
        })
        .await?
        .map_err(Error::Hashing)
    }

    /// Whether the password is the one that was hashed; never where there is no hash.
    pub(crate) async fn verify(
        &self,
        place: SignInPlace,
        password: Secret,
        hash: Option<String>,
    ) -> Result<bool, Error> {
        let known = hash.is_some();
        let hash = hash.unwrap_or_else(|| self.nobody.as_ref().to_owned());
        let answer = self
            .on_a_thread(place.0, move || {
                let hash = PasswordHash::new(&hash).map_err(|_| password_hash::Error::EncodingInvalid)?;
                argon2()?.verify_password(password.expose().as_bytes(), &hash)
            })
            .await?;
        match answer {
            Ok(()) => Ok(known),
            Err(password_hash::Error::PasswordInvalid) => Ok(false),
            Err(password_hash::Error::EncodingInvalid) => Err(DatabaseError::Corrupt {
                what: "password hash",
            }
            .into()),
            Err(error) => Err(Error::Hashing(error)),
        }
    }

    async fn on_a_thread<T: Send + 'static>(
        &self,
        permits: impl Send + 'static,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let thread = enter(&self.threads).await?;
        // All permits go with the work: a caller that gives up does not make room that is not there.
        let work = tokio::task::spawn_blocking(move || {
            let answer = work();
            drop((thread, permits));
            answer
        });
        work.await.map_err(|_| DatabaseError::Aborted.into())
    }
}

/// A permit, or a refusal at once.
fn try_enter(room: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Error> {
    room.clone().try_acquire_owned().map_err(|_| Error::Overloaded)
}

/// A permit, when there is one.
async fn enter(room: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Error> {
    room.clone().acquire_owned().await.map_err(|_| Error::Overloaded)
}

fn argon2() -> Result<Argon2<'static>, password_hash::Error> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None)?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime")
    }

    async fn passwords(waiting_max: usize, sign_ups_waiting_max: usize) -> Passwords {
        Passwords::new(PasswordsConfig {
            hashing_at_once: 2,
            waiting_max,
            sign_ups_waiting_max,
        })
        .await
        .expect("hashing works")
    }

    #[test]
    fn a_password_verifies_only_against_its_own_hash() {
        runtime().block_on(async {
            let passwords = passwords(8, 8).await;
            let place = || passwords.sign_in_place().expect("a place");
            let password = Secret::new("nul \0 and é inside");
            let new = passwords.sign_up_place().expect("a place");
            let hash = passwords.hash(new, password.clone()).await.expect("a hash");
            assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
            assert!(
                passwords
                    .verify(place(), password.clone(), Some(hash.clone()))
                    .await
                    .expect("verified")
            );
            let other = Secret::new("nul \0 and e inside");
            assert!(
                !passwords
                    .verify(place(), other, Some(hash))
                    .await
                    .expect("verified")
            );
            assert!(
                !passwords
                    .verify(place(), password.clone(), None)
                    .await
                    .expect("verified")
            );
            let corrupt = passwords
                .verify(place(), password, Some("plain".to_owned()))
                .await;
            assert!(matches!(
                corrupt,
                Err(Error::Database(DatabaseError::Corrupt { .. }))
            ));
        });
    }

    #[test]
    fn what_does_not_fit_is_refused_at_once() {
        runtime().block_on(async {
            let passwords = passwords(1, 1).await;
            let place = passwords.sign_in_place().expect("a place");
            assert!(matches!(passwords.sign_in_place(), Err(Error::Overloaded)));
            drop(place);
            assert!(passwords.sign_in_place().is_ok());
        });
    }

    #[test]
    fn a_flood_of_sign_ups_leaves_places_and_a_thread_to_who_signs_in() {
        runtime().block_on(async {
            let passwords = passwords(1, 4).await;
            let places: Vec<SignUpPlace> = (0..4)
                .map(|_| passwords.sign_up_place().expect("a place"))
                .collect();
            assert!(matches!(passwords.sign_up_place(), Err(Error::Overloaded)));
            let mut hashing = tokio::task::JoinSet::new();
            for place in places {
                let passwords = passwords.clone();
                hashing.spawn(async move { passwords.hash(place, Secret::new("plinth orbit walnut")).await });
            }
            // All of them ask; one is at work.
            for _ in 0..16 {
                tokio::task::yield_now().await;
                assert!(passwords.threads.available_permits() >= 1);
            }
            let place = passwords.sign_in_place().expect("a place");
            let right = passwords.verify(place, Secret::new("guess"), None).await;
            assert!(matches!(right, Ok(false)));
            assert!(hashing.join_all().await.iter().all(Result::is_ok));
            assert_eq!(passwords.sign_up_places.available_permits(), 4);
        });
    }
}
