//! The currencies of ISO 4217, with the number of decimals of each.

use octroi_core::money::Currency;

/// Currencies whose minor unit is not a hundredth.
const ZERO_DECIMALS: &str = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF";
const THREE_DECIMALS: &str = "BHD IQD JOD KWD LYD OMR TND";
const TWO_DECIMALS: &str = "AED AFN ALL AMD AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BRL BSD BTN \
    BWP BYN BZD CAD CDF CHF CNY COP CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD \
    GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA MKD \
    MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR RON RSD RUB \
    SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD TZS UAH USD UYU \
    UZS VED VES WST XCD XCG YER ZAR ZMW ZWG";

/// The decimals of a currency; none where ISO does not list it.
#[must_use]
pub fn decimals(currency: Currency) -> Option<u32> {
    let listed = |codes: &str| {
        codes
            .split_ascii_whitespace()
            .any(|code| code == currency.as_str())
    };
    if listed(TWO_DECIMALS) {
        Some(2)
    } else if listed(ZERO_DECIMALS) {
        Some(0)
    } else if listed(THREE_DECIMALS) {
        Some(3)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_listed_currency_has_its_decimals() {
        for (code, expected) in [
            ("EUR", Some(2)),
            ("JPY", Some(0)),
            ("TND", Some(3)),
            ("ZZZ", None),
        ] {
            assert_eq!(
                decimals(Currency::parse(code).expect("three letters")),
                expected,
                "{code}"
            );
        }
    }
}
