//! Places text on pages. Coordinates are whole points from the lower left corner; widths of text are in
//! thousandths of a point until the very end.

use pdf_writer::{Content, Name, Str};

use super::text;

pub(super) const PAGE_WIDTH: f32 = 595.0;
pub(super) const PAGE_HEIGHT: f32 = 842.0;
/// The margins.
pub(super) const LEFT: i32 = 50;
pub(super) const RIGHT: i32 = 545;
const TOP: i32 = 780;
const BOTTOM: i32 = 80;
const FOOT: i32 = 40;

/// One of the two fonts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Font {
    Regular,
    Bold,
}

impl Font {
    /// What pages call it.
    pub(super) const fn name(self) -> &'static [u8] {
        match self {
            Self::Regular => b"R",
            Self::Bold => b"B",
        }
    }

    /// What readers call it.
    pub(super) const fn base_name(self) -> &'static [u8] {
        match self {
            Self::Regular => b"Helvetica",
            Self::Bold => b"Helvetica-Bold",
        }
    }
}

/// Which end of a text its place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    Left,
    Right,
}

/// The pages, and the height at which the next text goes on the last.
pub(super) struct Canvas {
    done: Vec<Content>,
    page: Content,
    y: i32,
}

impl Canvas {
    pub(super) fn new() -> Self {
        Self {
            done: Vec::new(),
            page: Content::new(),
            y: TOP,
        }
    }

    pub(super) fn y(&self) -> i32 {
        self.y
    }

    pub(super) fn go_to(&mut self, y: i32) {
        self.y = y;
    }

    pub(super) fn down(&mut self, by: i32) {
        self.y -= by;
    }

    /// Goes down, or to the top of a new page where this one is full. Whether it did the latter.
    pub(super) fn down_or_new_page(&mut self, by: i32) -> bool {
        if self.y - by >= BOTTOM {
            self.y -= by;
            return false;
        }
        self.done.push(std::mem::replace(&mut self.page, Content::new()));
        self.y = TOP;
        true
    }

    pub(super) fn text(&mut self, font: Font, size: i32, x: i32, align: Align, text: &str) {
        place(&mut self.page, font, size, (x, self.y), align, text);
    }

    /// A line across the page.
    pub(super) fn rule(&mut self) {
        let y = points(self.y * 1_000);
        self.page
            .set_line_width(0.5)
            .move_to(points(LEFT * 1_000), y)
            .line_to(points(RIGHT * 1_000), y)
            .stroke();
    }

    /// The contents of the pages, each with what `foot` says of its number and of how many there are.
    pub(super) fn finish(self, foot: impl Fn(usize, usize) -> String) -> Vec<Vec<u8>> {
        let mut pages = self.done;
        pages.push(self.page);
        let count = pages.len();
        let with_foot = |(index, mut page): (usize, Content)| {
            place(
                &mut page,
                Font::Regular,
                8,
                (RIGHT, FOOT),
                Align::Right,
                &foot(index + 1, count),
            );
            page.finish().to_vec()
        };
        pages.into_iter().enumerate().map(with_foot).collect()
    }
}

fn place(page: &mut Content, font: Font, size: i32, (x, y): (i32, i32), align: Align, text: &str) {
    let x = match align {
        Align::Left => x * 1_000,
        Align::Right => x * 1_000 - text::width(font, size, text),
    };
    let size = points(size * 1_000);
    let encoded = text::encoded(text);
    page.begin_text()
        .set_font(Name(font.name()), size)
        .next_line(points(x), points(y * 1_000));
    page.show(Str(&encoded)).end_text();
}

#[expect(
    clippy::float_arithmetic,
    reason = "the numbers of a PDF are floats; no money is among them"
)]
fn points(thousandths: i32) -> f32 {
    thousandths as f32 / 1_000.0
}
