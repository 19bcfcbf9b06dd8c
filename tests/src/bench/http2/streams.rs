//! The calls that a connection has open, found by the ids of their streams.

use super::fault::Fault;

/// The largest window that there can be.
const WINDOW_BYTES_MAX: i64 = (1 << 31) - 1;

/// One open call.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// 0 where there is none.
    id: u32,
    /// What its owner calls it.
    pub(super) mark: u32,
    /// What the peer still takes of it.
    pub(super) window: Window,
    /// What could not be sent yet.
    pub(super) unsent: Vec<u8>,
    /// Nothing follows what could not be sent yet.
    pub(super) unsent_is_last: bool,
    /// We have said that nothing follows.
    pub(super) is_finished: bool,
    /// The beginning of a message whose rest has not arrived.
    pub(super) partial: Vec<u8>,
    /// What arrived since we last gave the peer's window back.
    pub(super) received_bytes: u32,
    /// The HTTP status was 200.
    pub(super) is_http_ok: bool,
    /// The gRPC status, once it is known.
    pub(super) status: Option<u8>,
}

impl Stream {
    /// Everything that a stream has, for another one. The buffers keep their memory.
    fn restart(&mut self, id: u32, mark: u32, window: Window) {
        self.id = id;
        self.mark = mark;
        self.window = window;
        self.unsent.clear();
        self.unsent_is_last = false;
        self.is_finished = false;
        self.partial.clear();
        self.received_bytes = 0;
        self.is_http_ok = false;
        self.status = None;
    }

    pub(super) fn id(&self) -> u32 {
        self.id
    }
}

/// What an endpoint still takes. The peer can shrink it below zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Window(i64);

impl Window {
    pub(super) fn new(bytes: u32) -> Self {
        Self(i64::from(bytes))
    }

    /// How much may be sent now.
    pub(super) fn room(self) -> usize {
        usize::try_from(self.0).unwrap_or(0)
    }

    pub(super) fn take(&mut self, bytes: usize) {
        debug_assert!(bytes <= self.room(), "only what there is room for is sent");
        self.0 -= bytes as i64;
    }

    /// Opens it by `bytes`, or closes it where they are negative.
    pub(super) fn move_by(&mut self, bytes: i64) -> Result<(), Fault> {
        self.0 += bytes;
        if self.0 > WINDOW_BYTES_MAX {
            return Err(Fault::WindowTooLarge);
        }
        Ok(())
    }
}

/// A table with a place for each id modulo its length. An id whose place is taken by a call that takes long
/// is left out, which HTTP/2 allows; so nothing is ever searched for.
#[derive(Debug)]
pub(super) struct Streams {
    places: Box<[Stream]>,
    next_id: u32,
    open: usize,
}

impl Streams {
    /// The last id that a client can give.
    const ID_MAX: u32 = (1 << 31) - 1;

    /// A table for `open_max` calls at a time.
    pub(super) fn new(open_max: usize) -> Self {
        // Twice as many as needed, so that few ids are left out.
        let length = (open_max.max(1) * 2).next_power_of_two();
        Self {
            places: (0..length).map(|_| Stream::default()).collect(),
            next_id: 1,
            open: 0,
        }
    }

    /// How many calls are open.
    pub(super) fn open(&self) -> usize {
        self.open
    }

    /// Whether no id is left to open another call with.
    pub(super) fn are_used_up(&self) -> bool {
        // As many as are left out at the most.
        self.next_id > Self::ID_MAX - 2 * self.places.len() as u32
    }

    /// Whether this call would be the first.
    pub(super) fn are_untouched(&self) -> bool {
        self.next_id == 1
    }

    fn place(&self, id: u32) -> usize {
        // A client's ids are odd.
        (id >> 1) as usize & (self.places.len() - 1)
    }

    /// Opens a call and answers its id.
    pub(super) fn insert(&mut self, mark: u32, window: Window) -> u32 {
        assert!(
            self.open < self.places.len() && !self.are_used_up(),
            "the caller asks before"
        );
        while self.places[self.place(self.next_id)].id != 0 {
            self.next_id += 2;
        }
        let id = self.next_id;
        self.next_id += 2;
        self.open += 1;
        self.places[self.place(id)].restart(id, mark, window);
        id
    }

    /// The open call with this id; none where it has ended, or for the connection's own 0.
    pub(super) fn find(&mut self, id: u32) -> Option<&mut Stream> {
        let place = self.place(id);
        self.places
            .get_mut(place)
            .filter(|stream| id != 0 && stream.id == id)
    }

    /// Ends a call.
    pub(super) fn remove(&mut self, id: u32) {
        if let Some(stream) = self.find(id) {
            stream.id = 0;
            stream.unsent.clear();
            self.open -= 1;
        }
    }

    /// Every open call.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Stream> {
        self.places.iter_mut().filter(|stream| stream.id != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_whose_place_is_taken_is_left_out() {
        let mut streams = Streams::new(2);
        let slow = streams.insert(7, Window::new(10));
        let mut given = vec![slow];
        for mark in 0..6 {
            let id = streams.insert(mark, Window::new(10));
            given.push(id);
            assert_eq!(streams.find(id).map(|stream| stream.mark), Some(mark));
            streams.remove(id);
            assert!(streams.find(id).is_none());
        }
        // Four places: 1 keeps its own, so 9 is left out.
        assert_eq!(given, [1, 3, 5, 7, 11, 13, 15]);
        assert_eq!(streams.find(slow).map(|stream| stream.mark), Some(7));
        assert_eq!(streams.open(), 1);
    }

    #[test]
    fn ids_come_to_an_end() {
        let mut streams = Streams::new(2);
        streams.next_id = Streams::ID_MAX - 8;
        assert!(!streams.are_used_up());
        // The largest that is given out, even where all other places are taken.
        streams.insert(0, Window::new(10));
        assert!(streams.are_used_up());
    }

    #[test]
    fn the_connection_is_no_stream() {
        assert!(Streams::new(1).find(0).is_none());
    }

    #[test]
    fn a_window_may_be_negative_but_not_too_large() {
        let mut window = Window::new(5);
        window.take(5);
        assert_eq!(window.move_by(-3), Ok(()));
        assert_eq!(window.room(), 0);
        assert_eq!(window.move_by(4), Ok(()));
        assert_eq!(window.room(), 1);
        assert_eq!(window.move_by(WINDOW_BYTES_MAX), Err(Fault::WindowTooLarge));
    }
}
