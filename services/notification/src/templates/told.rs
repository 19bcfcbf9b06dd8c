//! What a text is made of, for each kind of notice.

use minijinja::{Value, context};

use super::Reader;
use crate::domain::{
    Language,
    anomaly::AnomalyDetected,
    figures::{date, date_time, number, percent},
    threshold::{ThresholdCrossed, mode_name},
};

/// Something that people are told.
pub trait Told {
    /// The file with its words in a language.
    fn file(language: Language) -> &'static str;

    /// What the file may use: figures and times as the language writes them.
    fn figures(&self, reader: &Reader<'_>) -> Value;
}

impl Told for ThresholdCrossed {
    fn file(language: Language) -> &'static str {
        match language {
            Language::English => "threshold_crossed.en.txt",
            Language::French => "threshold_crossed.fr.txt",
        }
    }

    fn figures(&self, reader: &Reader<'_>) -> Value {
        let Reader { language, zone, .. } = *reader;
        let window = self.window;
        let end = window.is_bounded().then(|| date_time(language, window.end, zone));
        context! {
            metric => self.metric.as_str(),
            period => self.period.as_str(),
            mode => mode_name(self.mode),
            limit => number(language, self.limit.get()),
            used => number(language, self.used.get()),
            percent => percent(language, self.percent),
            full => self.percent == 100,
            over => self.percent >= 100,
            closed => self.window_closed,
            start => date_time(language, window.start, zone),
            start_date => date(language, window.start, zone),
            end => end,
        }
    }
}

impl Told for AnomalyDetected {
    fn file(language: Language) -> &'static str {
        match language {
            Language::English => "anomaly_detected.en.txt",
            Language::French => "anomaly_detected.fr.txt",
        }
    }

    fn figures(&self, reader: &Reader<'_>) -> Value {
        let Reader { language, zone, .. } = *reader;
        context! {
            metric => self.metric.as_str(),
            side => self.side.as_str(),
            used => number(language, self.used.get()),
            low => number(language, self.low.get()),
            high => number(language, self.high.get()),
            grown => self.grown,
            peak => date_time(language, self.peak_at, zone),
            start => date_time(language, self.range.start, zone),
            end => date_time(language, self.range.end, zone),
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::tz::TimeZone;

    use super::*;
    use crate::{
        domain::anomaly::{Side, tests::example},
        templates::Templates,
    };

    const UTC: &TimeZone = &TimeZone::UTC;

    fn reader(language: Language) -> Reader<'static> {
        Reader {
            language,
            zone: UTC,
            account_name: "Atelier Nord",
            console: None,
        }
    }

    #[test]
    fn an_anomaly_reads_like_a_letter_in_both_languages() {
        let templates = Templates::new().expect("templates");
        let letter = templates
            .letter(&example(), &reader(Language::English))
            .expect("a letter");
        assert_eq!(
            letter.subject,
            "[Atelier Nord] api.requests: more used than expected"
        );
        assert_eq!(
            letter.text,
            "api.requests: more used than expected\n\
             \n\
             8,012 api.requests were used in the hour from 3 November 2026, 11:00 UTC; by the weeks before, 400 to 1,600 are \
             expected.\n\
             \n\
             Metric: api.requests\n\
             Expected: 400 to 1,600\n\
             Used: 8,012\n\
             From: 3 November 2026, 10:00 UTC\n\
             Until: 3 November 2026, 12:00 UTC\n\
             \n\
             You receive this e-mail because you are an owner of the account Atelier Nord."
        );
        let letter = templates
            .letter(&example(), &reader(Language::French))
            .expect("a letter");
        assert_eq!(
            letter.text,
            "api.requests\u{202f}: utilisation plus forte que prévu\n\
             \n\
             Utilisation de api.requests dans l’heure commencée le 3 novembre 2026 à 11:00 UTC\u{202f}: 8\u{202f}012\u{202f}; \
             d’après les semaines précédentes, de 400 à 1\u{202f}600 étaient attendus.\n\
             \n\
             Métrique\u{202f}: api.requests\n\
             Attendu\u{202f}: de 400 à 1\u{202f}600\n\
             Utilisé\u{202f}: 8\u{202f}012\n\
             Du\u{202f}: 3 novembre 2026 à 10:00 UTC\n\
             Au\u{202f}: 3 novembre 2026 à 12:00 UTC\n\
             \n\
             Vous recevez cet e-mail parce que vous êtes propriétaire du compte Atelier Nord."
        );
    }

    #[test]
    fn every_anomaly_has_a_text_of_its_own_on_one_line() {
        let templates = Templates::new().expect("templates");
        for language in [Language::English, Language::French] {
            let mut seen = Vec::new();
            for side in Side::ALL {
                for grown in [false, true] {
                    let detected = AnomalyDetected {
                        side,
                        grown,
                        ..example()
                    };
                    let notice = templates.notice(&detected, &reader(language)).expect("a notice");
                    for text in [&notice.title, &notice.body] {
                        let clean = !text.contains('\n') && !text.contains("  ") && text.trim() == text;
                        assert!(clean && !text.contains("{{"), "{text:?}");
                    }
                    assert!(!seen.contains(&notice), "{notice:?}");
                    seen.push(notice);
                }
            }
        }
    }
}
