//! What we write to people, in each language.
//!
//! The words of a kind of notice are in one file a language, which gives names to texts: `title`, `body`,
//! `subject` and so on. The layouts of the two parts of an e-mail take these names and have no words.
//! The HTML layout is MJML; it becomes HTML once, at the start, with its placeholders still in it, so
//! that nothing that a person chose ever passes the MJML parser. Values are escaped where the HTML is
//! filled in. A name that no value was given for is an error, never an empty text.

mod told;

use std::collections::{BTreeMap, HashMap};

use jiff::tz::TimeZone;
use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value, context};

pub use self::told::Told;
use crate::domain::{Language, Letter, name};

const THRESHOLD_CROSSED_EN: &str = include_str!("../templates/threshold_crossed.en.txt");
const THRESHOLD_CROSSED_FR: &str = include_str!("../templates/threshold_crossed.fr.txt");
const ANOMALY_DETECTED_EN: &str = include_str!("../templates/anomaly_detected.en.txt");
const ANOMALY_DETECTED_FR: &str = include_str!("../templates/anomaly_detected.fr.txt");
const EMAIL_TEXT: &str = include_str!("../templates/email.txt");
const EMAIL_MJML: &str = include_str!("../templates/email.mjml");

/// Why a text cannot be made; always a fault of ours.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// The layout is no MJML.
    #[error("the layout of e-mails cannot be read: {0}")]
    Layout(String),
    /// A template has a fault, or was given too little.
    #[error("a template cannot be rendered")]
    Template(#[from] minijinja::Error),
    /// A template does not give a text that it must give.
    #[error("a template gives no {0}")]
    Missing(&'static str),
}

/// Who is written to, and what the text needs to know of them.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    /// The language.
    pub language: Language,
    /// The zone in which times are told.
    pub zone: &'a TimeZone,
    /// The name of the account, as its owner chose it.
    pub account_name: &'a str,
    /// Where the console is; none where an e-mail carries no link.
    pub console: Option<&'a str>,
}

/// The text of an in-app notice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NoticeText {
    /// The headline.
    pub title: String,
    /// The text below it.
    pub body: String,
}

/// All templates, compiled.
#[derive(Debug)]
pub struct Templates {
    environment: Environment<'static>,
}

impl Templates {
    /// Compiles all templates.
    ///
    /// # Errors
    /// [`RenderError`] where one has a fault.
    pub fn new() -> Result<Self, RenderError> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_auto_escape_callback(|name| match name.rsplit_once('.') {
            Some((_, "html")) => AutoEscape::Html,
            _ => AutoEscape::None,
        });
        environment.add_template("threshold_crossed.en.txt", THRESHOLD_CROSSED_EN)?;
        environment.add_template("threshold_crossed.fr.txt", THRESHOLD_CROSSED_FR)?;
        environment.add_template("anomaly_detected.en.txt", ANOMALY_DETECTED_EN)?;
        environment.add_template("anomaly_detected.fr.txt", ANOMALY_DETECTED_FR)?;
        environment.add_template("email.txt", EMAIL_TEXT)?;
        environment.add_template_owned("email.html", html_of(EMAIL_MJML)?)?;
        Ok(Self { environment })
    }

    /// The text of an in-app notice.
    ///
    /// # Errors
    /// [`RenderError`].
    pub fn notice<T: Told>(&self, told: &T, reader: &Reader<'_>) -> Result<NoticeText, RenderError> {
        let words = self.words(told, reader, &name::clean(reader.account_name))?;
        Ok(NoticeText {
            title: text_of(&words, "title")?,
            body: text_of(&words, "body")?,
        })
    }

    /// Subject and both parts of an e-mail.
    ///
    /// # Errors
    /// [`RenderError`].
    pub fn letter<T: Told>(&self, told: &T, reader: &Reader<'_>) -> Result<Letter, RenderError> {
        let words = self.words(told, reader, &name::clean_without_links(reader.account_name))?;
        let subject = text_of(&words, "subject")?;
        let layout = context! {
            language => reader.language.as_str(),
            console => reader.console,
            ..words
        };
        let render = |name: &str| self.environment.get_template(name)?.render(layout.clone());
        Ok(Letter {
            subject,
            html: render("email.html")?,
            text: render("email.txt")?,
        })
    }

    /// What the language's file says, by name, beside the figures that it was given.
    fn words<T: Told>(
        &self,
        told: &T,
        reader: &Reader<'_>,
        account_name: &str,
    ) -> Result<Value, RenderError> {
        let figures = context! { account => account_name, ..told.figures(reader) };
        let captured = self
            .environment
            .get_template(T::file(reader.language))?
            .render_captured(figures.clone())?;
        let state = captured.state();
        let words: BTreeMap<String, Value> = state
            .exports()
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), state.lookup(name)?)))
            .collect();
        Ok(context! { ..words, ..figures })
    }
}

/// HTML with placeholders, from MJML with placeholders. No font is fetched from anywhere.
fn html_of(mjml: &str) -> Result<String, RenderError> {
    let parsed = mrml::parse(mjml).map_err(|error| RenderError::Layout(error.to_string()))?;
    let options = mrml::prelude::render::RenderOptions {
        fonts: HashMap::new(),
        ..Default::default()
    };
    parsed
        .element
        .render(&options)
        .map_err(|error| RenderError::Layout(error.to_string()))
}

fn text_of(words: &Value, name: &'static str) -> Result<String, RenderError> {
    let value = words.get_attr(name)?;
    value
        .as_str()
        .map(str::to_owned)
        .ok_or(RenderError::Missing(name))
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use octroi_core::{LimitMode, Period, Window};

    use super::*;
    use crate::domain::{
        figures::number,
        threshold::{ThresholdCrossed, tests::example},
    };

    const LANGUAGES: [Language; 2] = [Language::English, Language::French];

    const UTC: &TimeZone = &TimeZone::UTC;

    fn reader(language: Language, account_name: &str) -> Reader<'_> {
        Reader {
            language,
            zone: UTC,
            account_name,
            console: Some("https://console.example.com"),
        }
    }

    fn every_case() -> Vec<ThresholdCrossed> {
        let mut cases = Vec::new();
        for period in Period::ALL {
            for mode in [LimitMode::Hard, LimitMode::Soft, LimitMode::Shadow] {
                for percent in [80, 95, 100, 150] {
                    for window_closed in [false, true] {
                        let end = if period == Period::Lifetime {
                            Timestamp::MAX
                        } else {
                            example().window.end
                        };
                        let window = Window {
                            end,
                            ..example().window
                        };
                        cases.push(ThresholdCrossed {
                            period,
                            mode,
                            percent,
                            window_closed,
                            window,
                            ..example()
                        });
                    }
                }
            }
        }
        cases
    }

    #[test]
    fn every_template_has_all_that_it_asks_for_and_says_the_figures() {
        let templates = Templates::new().expect("templates");
        for language in LANGUAGES {
            let (used, limit) = (number(language, 8_012), number(language, 10_000));
            for crossed in every_case() {
                for console in [None, Some("https://console.example.com")] {
                    let reader = Reader {
                        console,
                        ..reader(language, "Atelier Nord")
                    };
                    let letter = templates.letter(&crossed, &reader).expect("a letter");
                    let notice = templates.notice(&crossed, &reader).expect("a notice");
                    for text in [&letter.html, &letter.text, &notice.body] {
                        assert!(text.contains(&used) && text.contains(&limit), "{text}");
                        assert!(text.contains("api.requests"), "{text}");
                    }
                    assert_eq!(
                        letter.text.contains("console.example.com/usage"),
                        console.is_some()
                    );
                    assert_eq!(
                        letter.html.contains("href="),
                        console.is_some(),
                        "{}",
                        letter.html
                    );
                    for text in [&letter.subject, &notice.title, &notice.body] {
                        assert!(
                            !text.contains('\n') && !text.contains("  ") && text.trim() == text,
                            "{text:?}"
                        );
                    }
                    for text in [
                        &letter.subject,
                        &letter.html,
                        &letter.text,
                        &notice.title,
                        &notice.body,
                    ] {
                        assert!(!text.contains("{{") && !text.contains("{%"), "{text}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_text_part_reads_like_a_letter() {
        let templates = Templates::new().expect("templates");
        let letter = templates
            .letter(&example(), &reader(Language::English, "Atelier Nord"))
            .expect("a letter");
        assert_eq!(
            letter.subject,
            "[Atelier Nord] api.requests: 80% of the monthly limit used"
        );
        assert_eq!(
            letter.text,
            "api.requests: 80% of the monthly limit used\n\
             \n\
             8,012 of 10,000 api.requests were used in the month from 1 November 2026. At 10,000, further use is \
             refused until 1 December 2026, 00:00 UTC.\n\
             \n\
             Metric: api.requests\n\
             Limit: 10,000\n\
             Used: 8,012\n\
             From: 1 November 2026, 00:00 UTC\n\
             Until: 1 December 2026, 00:00 UTC\n\
             \n\
             See your usage: https://console.example.com/usage\n\
             \n\
             You receive this e-mail because you are an owner of the account Atelier Nord."
        );
    }

    #[test]
    fn the_french_text_part_reads_like_a_letter() {
        let templates = Templates::new().expect("templates");
        let crossed = ThresholdCrossed {
            percent: 100,
            ..example()
        };
        let reader = Reader {
            console: None,
            ..reader(Language::French, "Atelier Nord")
        };
        let letter = templates.letter(&crossed, &reader).expect("a letter");
        assert_eq!(
            letter.subject,
            "[Atelier Nord] api.requests\u{202f}: limite mensuelle atteinte"
        );
        assert_eq!(
            letter.text,
            "api.requests\u{202f}: limite mensuelle atteinte\n\
             \n\
             Utilisation de api.requests dans le mois commencé le 1er novembre 2026\u{202f}: 8\u{202f}012 sur \
             10\u{202f}000. Toute nouvelle utilisation est refusée jusqu’au 1er décembre 2026 à 00:00 UTC.\n\
             \n\
             Métrique\u{202f}: api.requests\n\
             Limite\u{202f}: 10\u{202f}000\n\
             Utilisé\u{202f}: 8\u{202f}012\n\
             Du\u{202f}: 1er novembre 2026 à 00:00 UTC\n\
             Au\u{202f}: 1er décembre 2026 à 00:00 UTC\n\
             \n\
             Vous recevez cet e-mail parce que vous êtes propriétaire du compte Atelier Nord."
        );
    }

    #[test]
    fn nothing_that_a_person_chose_is_read_as_markup_or_template() {
        let templates = Templates::new().expect("templates");
        let evil = "<script>alert(1)</script>{{7*7}}{% raw %}\r\nBcc: x\u{202e}\"><img src=x>";
        for language in LANGUAGES {
            let letter = templates
                .letter(&example(), &reader(language, evil))
                .expect("a letter");
            assert!(letter.html.contains("&lt;script&gt;"), "{}", letter.html);
            assert!(letter.html.contains("{{7*7}}") && letter.text.contains("{{7*7}}"));
            for forbidden in ["<script", "<img", "\u{202e}", "49"] {
                assert!(!letter.html.contains(forbidden), "{forbidden}: {}", letter.html);
            }
            assert!(
                !letter.subject.contains(['\r', '\n', '\u{202e}']),
                "{:?}",
                letter.subject
            );
            assert!(!letter.text.contains("\nBcc:"));
        }
    }

    #[test]
    fn an_email_asks_nobody_else_for_anything_and_is_small() {
        let templates = Templates::new().expect("templates");
        for language in LANGUAGES {
            let reader = Reader {
                console: None,
                ..reader(language, "Atelier Nord")
            };
            let html = templates.letter(&example(), &reader).expect("a letter").html;
            assert!(
                html.contains(&format!("lang=\"{}\"", language.as_str())),
                "{html}"
            );
            for fetched in ["<img", "<link", "@import", "url("] {
                assert!(!html.contains(fetched), "{fetched}: {html}");
            }
            assert!(html.len() < 16_384, "{}", html.len());
        }
    }
}
