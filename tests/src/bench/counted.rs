//! The program with every piece of memory that it asks for counted.
//!
//! `octroi-counted` is `octroi` and the route, on [`Counting`] memory. It says its count in a file of its own, so that
//! a bench reads it from outside. What it costs to count is little, but nothing else is measured of it.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result};

/// The program.
pub const PROGRAM: &str = "octroi-counted";

/// How often the count is said.
const SAID_EVERY: Duration = Duration::from_millis(50);

static COUNT: AtomicU64 = AtomicU64::new(0);

/// The system's memory, counted: pieces that are asked for, and pieces that are made larger or smaller.
#[derive(Debug)]
pub struct Counting;

// SAFETY: everything is handed to the system's allocator as it came; counting asks for no memory.
#[expect(unsafe_code, reason = "an allocator can be written in no other way")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the rules of this method, which are those of the system's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        COUNT.fetch_add(1, Ordering::Relaxed);
        // SAFETY: as above; every piece here came from the system's allocator.
        unsafe { System.realloc(place, layout, bytes) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(place, layout) }
    }
}

/// How many pieces this process has asked for so far.
#[must_use]
pub fn so_far() -> u64 {
    COUNT.load(Ordering::Relaxed)
}

fn file_of(pid: u32) -> PathBuf {
    std::env::temp_dir().join(format!("{PROGRAM}-{pid}"))
}

/// Says the count of this process for as long as it runs.
///
/// # Errors
/// When there is no thread for it.
pub fn say() -> Result<()> {
    let path = file_of(std::process::id());
    let say = move || {
        loop {
            // Where it cannot be written, whoever reads it says so.
            let _ = std::fs::write(&path, so_far().to_string());
            thread::sleep(SAID_EVERY);
        }
    };
    thread::Builder::new().name("counted".to_owned()).spawn(say)?;
    Ok(())
}

/// How many pieces a process that [says](say) it has asked for so far.
///
/// # Errors
/// When it does not say.
pub fn count(pid: u32) -> Result<u64> {
    // What is counted by now is said soon.
    thread::sleep(4 * SAID_EVERY);
    let path = file_of(pid);
    loop {
        let text = std::fs::read_to_string(&path).with_context(|| format!("{pid} says no count"))?;
        // In the middle of a write there is nothing in it.
        if let Ok(count) = text.trim().parse() {
            return Ok(count);
        }
        thread::sleep(SAID_EVERY / 10);
    }
}

/// Removes what a process that has ended said.
pub fn forget(pid: u32) {
    // There may be nothing.
    let _ = std::fs::remove_file(file_of(pid));
}
