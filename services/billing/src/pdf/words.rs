//! What an invoice says in each language, and how each writes numbers and days.

use jiff::civil::Date;

use crate::domain::invoice::Language;

/// The words of one language.
pub(super) struct Words {
    pub(super) language: &'static str,
    pub(super) invoice: &'static str,
    pub(super) draft: &'static str,
    pub(super) paid: &'static str,
    pub(super) voided: &'static str,
    pub(super) issued: &'static str,
    pub(super) due: &'static str,
    pub(super) period: &'static str,
    pub(super) from: &'static str,
    pub(super) to: &'static str,
    pub(super) description: &'static str,
    pub(super) quantity: &'static str,
    pub(super) amount: &'static str,
    pub(super) total: &'static str,
    page: &'static str,
    months: [&'static str; 12],
    decimal_mark: char,
    group_mark: char,
}

impl Words {
    pub(super) const fn of(language: Language) -> Self {
        match language {
            Language::English => ENGLISH,
            Language::French => FRENCH,
        }
    }

    /// A count of units.
    pub(super) fn count(&self, count: u64) -> String {
        self.grouped(count)
    }

    /// An amount of money, without its currency.
    pub(super) fn money(&self, amount_minor: i64, decimals: u32) -> String {
        let unit = 10_u64.pow(decimals);
        let magnitude = amount_minor.unsigned_abs();
        let sign = if amount_minor < 0 { "-" } else { "" };
        let whole = self.grouped(magnitude / unit);
        if decimals == 0 {
            return format!("{sign}{whole}");
        }
        let digits = usize::try_from(decimals).unwrap_or(0);
        format!("{sign}{whole}{}{:0digits$}", self.decimal_mark, magnitude % unit)
    }

    fn grouped(&self, number: u64) -> String {
        let digits = number.to_string();
        let mut text = String::with_capacity(digits.len() * 2);
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                text.push(self.group_mark);
            }
            text.push(digit);
        }
        text
    }

    /// A day.
    pub(super) fn date(&self, date: Date) -> String {
        let month = usize::from(date.month().unsigned_abs())
            .checked_sub(1)
            .and_then(|index| self.months.get(index));
        format!(
            "{} {} {}",
            date.day(),
            month.copied().unwrap_or_default(),
            date.year()
        )
    }

    /// The foot of a page.
    pub(super) fn page(&self, page: usize, pages: usize) -> String {
        format!("{} {page} / {pages}", self.page)
    }
}

const ENGLISH: Words = Words {
    language: "en",
    invoice: "Invoice",
    draft: "draft",
    paid: "Paid",
    voided: "Voided: this invoice is not to be paid",
    issued: "Date of issue",
    due: "Due by",
    period: "Period",
    from: "From",
    to: "To",
    description: "Description",
    quantity: "Quantity",
    amount: "Amount",
    total: "Total",
    page: "Page",
    months: [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ],
    decimal_mark: '.',
    group_mark: ',',
};

const FRENCH: Words = Words {
    language: "fr",
    invoice: "Facture",
    draft: "brouillon",
    paid: "Payée",
    voided: "Annulée : cette facture n’est pas à payer",
    issued: "Date d’émission",
    due: "À payer avant le",
    period: "Période",
    from: "De",
    to: "À",
    description: "Désignation",
    quantity: "Quantité",
    amount: "Montant",
    total: "Total",
    page: "Page",
    months: [
        "janvier",
        "février",
        "mars",
        "avril",
        "mai",
        "juin",
        "juillet",
        "août",
        "septembre",
        "octobre",
        "novembre",
        "décembre",
    ],
    decimal_mark: ',',
    group_mark: '\u{202f}',
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_language_writes_money_and_days_its_own_way() {
        for (amount_minor, decimals, english, french) in [
            (0, 2, "0.00", "0,00"),
            (5, 2, "0.05", "0,05"),
            (-123_456_789, 2, "-1,234,567.89", "-1\u{202f}234\u{202f}567,89"),
            (1_000, 0, "1,000", "1\u{202f}000"),
            (1_234, 3, "1.234", "1,234"),
            (
                i64::MIN,
                2,
                "-92,233,720,368,547,758.08",
                "-92\u{202f}233\u{202f}720\u{202f}368\u{202f}547\u{202f}758,08",
            ),
        ] {
            assert_eq!(
                Words::of(Language::English).money(amount_minor, decimals),
                english
            );
            assert_eq!(Words::of(Language::French).money(amount_minor, decimals), french);
        }
        let day = jiff::civil::date(2026, 2, 28);
        assert_eq!(Words::of(Language::English).date(day), "28 February 2026");
        assert_eq!(Words::of(Language::French).date(day), "28 février 2026");
    }
}
