//! An invoice as a PDF: A4, Helvetica of the 14 standard fonts, so that no font file is needed.
//!
//! A pure function of the invoice: the same invoice gives the same bytes.

mod layout;
mod text;
mod words;

use octroi_core::money::MoneyError;
use pdf_writer::{Finish as _, Name, Pdf, Rect, Ref, TextStr};

use self::{
    layout::{Align, Canvas, Font, LEFT, PAGE_HEIGHT, PAGE_WIDTH, RIGHT},
    words::Words,
};
use crate::domain::{
    currency,
    invoice::{Invoice, InvoiceLine, InvoiceStatus, Language, Party},
};

/// Where the columns of the table end or begin, in points.
const QUANTITY_END: i32 = 440;
const DESCRIPTION_WIDTH: i32 = 300;
/// Where the second block of the head begins.
const SECOND_COLUMN: i32 = 320;
const COLUMN_WIDTH: i32 = 220;

/// Renders an invoice.
///
/// # Errors
/// [`MoneyError::Overflow`] where its lines have no sum.
pub fn render(invoice: &Invoice, language: Language) -> Result<Vec<u8>, MoneyError> {
    let words = Words::of(language);
    let total_minor = invoice.total_minor()?;
    let decimals = currency::decimals(invoice.currency).unwrap_or(2);
    let mut canvas = Canvas::new();
    head(&mut canvas, invoice, &words);
    parties(&mut canvas, invoice, &words);
    table_head(&mut canvas, invoice, &words);
    for line in &invoice.lines {
        table_line(&mut canvas, invoice, line, &words, decimals);
    }
    total(&mut canvas, &words, &words.money(total_minor, decimals));
    Ok(write(canvas, &title(invoice, &words), &words))
}

fn title(invoice: &Invoice, words: &Words) -> String {
    match &invoice.number {
        Some(number) => format!("{} {number}", words.invoice),
        None => format!("{} ({})", words.invoice, words.draft),
    }
}

fn head(canvas: &mut Canvas, invoice: &Invoice, words: &Words) {
    canvas.text(Font::Bold, 20, LEFT, Align::Left, &title(invoice, words));
    canvas.down(10);
    let standing = match invoice.status {
        InvoiceStatus::Paid => Some(words.paid),
        InvoiceStatus::Voided => Some(words.voided),
        InvoiceStatus::Draft | InvoiceStatus::Finalized | InvoiceStatus::Uncollectible => None,
    };
    if let Some(standing) = standing {
        canvas.down(16);
        canvas.text(Font::Bold, 11, LEFT, Align::Left, standing);
    }
    let period = format!(
        "{} – {}",
        words.date(invoice.period_start_on),
        words.date(invoice.period_end_on)
    );
    let mut facts = vec![(words.issued, words.date(invoice.issued_on))];
    facts.extend(invoice.due_on.map(|due_on| (words.due, words.date(due_on))));
    facts.push((words.period, period));
    for (name, fact) in facts {
        canvas.down(16);
        canvas.text(Font::Regular, 10, LEFT, Align::Left, name);
        canvas.text(Font::Regular, 10, LEFT + 110, Align::Left, &fact);
    }
    canvas.down(30);
}

fn parties(canvas: &mut Canvas, invoice: &Invoice, words: &Words) {
    let top = canvas.y();
    let left_end = party(canvas, LEFT, words.from, &invoice.from);
    canvas.go_to(top);
    let right_end = party(canvas, SECOND_COLUMN, words.to, &invoice.to);
    canvas.go_to(left_end.min(right_end));
    canvas.down(36);
}

/// Where the block ends.
fn party(canvas: &mut Canvas, x: i32, heading: &str, party: &Party) -> i32 {
    canvas.text(Font::Regular, 9, x, Align::Left, heading);
    let name = text::wrapped(Font::Bold, 10, COLUMN_WIDTH, &party.name)
        .into_iter()
        .map(|line| (Font::Bold, line));
    let rest = party
        .lines
        .iter()
        .flat_map(|line| text::wrapped(Font::Regular, 10, COLUMN_WIDTH, line));
    // As many as the page has room for beside the table.
    for (font, line) in name.chain(rest.map(|line| (Font::Regular, line))).take(20) {
        canvas.down(14);
        canvas.text(font, 10, x, Align::Left, &line);
    }
    canvas.y()
}

fn table_head(canvas: &mut Canvas, invoice: &Invoice, words: &Words) {
    canvas.text(Font::Bold, 10, LEFT, Align::Left, words.description);
    canvas.text(Font::Bold, 10, QUANTITY_END, Align::Right, words.quantity);
    canvas.text(
        Font::Bold,
        10,
        RIGHT,
        Align::Right,
        &format!("{} ({})", words.amount, invoice.currency),
    );
    canvas.down(6);
    canvas.rule();
}

fn table_line(canvas: &mut Canvas, invoice: &Invoice, line: &InvoiceLine, words: &Words, decimals: u32) {
    for (index, part) in text::wrapped(Font::Regular, 10, DESCRIPTION_WIDTH, &line.description)
        .iter()
        .enumerate()
    {
        if canvas.down_or_new_page(if index == 0 { 18 } else { 13 }) {
            table_head(canvas, invoice, words);
            canvas.down(18);
        }
        canvas.text(Font::Regular, 10, LEFT, Align::Left, part);
        if index == 0 {
            if let Some(quantity) = line.quantity {
                canvas.text(
                    Font::Regular,
                    10,
                    QUANTITY_END,
                    Align::Right,
                    &words.count(quantity),
                );
            }
            canvas.text(
                Font::Regular,
                10,
                RIGHT,
                Align::Right,
                &words.money(line.amount_minor, decimals),
            );
        }
    }
}

fn total(canvas: &mut Canvas, words: &Words, amount: &str) {
    canvas.down_or_new_page(10);
    canvas.rule();
    canvas.down_or_new_page(18);
    canvas.text(Font::Bold, 11, LEFT, Align::Left, words.total);
    canvas.text(Font::Bold, 11, RIGHT, Align::Right, amount);
}

/// Objects: 1 catalog, 2 page tree, 3 information, 4 and 5 fonts, then a page and its content in turn.
fn write(canvas: Canvas, title: &str, words: &Words) -> Vec<u8> {
    let (catalog, tree, information) = (Ref::new(1), Ref::new(2), Ref::new(3));
    let fonts = [(Font::Regular, Ref::new(4)), (Font::Bold, Ref::new(5))];
    let contents = canvas.finish(|page, pages| words.page(page, pages));
    let ids: Vec<(Ref, Ref)> = (3_i32..)
        .take(contents.len())
        .map(|pair| (Ref::new(2 * pair), Ref::new(2 * pair + 1)))
        .collect();
    let mut pdf = Pdf::new();
    pdf.catalog(catalog).pages(tree).lang(TextStr(words.language));
    pdf.document_info(information)
        .title(TextStr(title))
        .producer(TextStr("Octroi"));
    let count = i32::try_from(contents.len()).unwrap_or(i32::MAX);
    pdf.pages(tree)
        .kids(ids.iter().map(|(page, _)| *page))
        .count(count);
    for (font, id) in fonts {
        pdf.type1_font(id)
            .base_font(Name(font.base_name()))
            .encoding_predefined(Name(b"WinAnsiEncoding"));
    }
    for ((page_id, content_id), content) in ids.into_iter().zip(contents) {
        let mut page = pdf.page(page_id);
        page.media_box(Rect::new(0.0, 0.0, PAGE_WIDTH, PAGE_HEIGHT))
            .parent(tree)
            .contents(content_id);
        let mut resources = page.resources();
        let mut dictionary = resources.fonts();
        for (font, id) in fonts {
            dictionary.pair(Name(font.name()), id);
        }
        dictionary.finish();
        resources.finish();
        page.finish();
        pdf.stream(content_id, &content);
    }
    pdf.finish()
}

#[cfg(test)]
mod tests;
