//! User agents of honest clients: browsers in every language, apps, bots, feed readers, libraries, consoles, televisions, models with odd names.

use std::{collections::BTreeMap, sync::LazyLock};

use crate::corpus::dice::Dice;

/// Lists of names: `@ name` begins one. Languages, models and apps are there that hold the name of a scanner, a command or a word of SQL.
static LISTS: LazyLock<BTreeMap<&str, Vec<&str>>> = LazyLock::new(|| {
    let mut lists: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut name = "";
    for line in include_str!("../honest/clients.txt").lines() {
        match line.strip_prefix("@ ") {
            Some(next) => name = next,
            None => lists.entry(name).or_default().push(line),
        }
    }
    lists
});

fn list(name: &str) -> &'static [&'static str] {
    &LISTS[name]
}

/// One user agent, and what kind of client it is of: all variants of a kind are held out together or not at all.
pub fn agent(turn: usize, dice: &mut Dice) -> (String, String) {
    match turn % 20 {
        0..4 => android(dice),
        4..6 => old_browser(dice),
        6..8 => desktop(dice),
        8..10 => phone_app(dice),
        10..12 => bot(dice),
        12 => reader(dice),
        13..15 => library(dice),
        15 => console(dice),
        16 => company(dice),
        17 => tool(dice),
        18 => mail_or_office(dice),
        _ => in_app(dice),
    }
}

fn version(dice: &mut Dice) -> String {
    format!("{}.0.{}.{}", dice.range(60, 141), dice.range(1000, 7400), dice.range(10, 240))
}

fn android(dice: &mut Dice) -> (String, String) {
    let model = dice.pick(list("models"));
    let os = dice.pick(list("androids"));
    let chrome = version(dice);
    let locale = dice.pick(list("locales"));
    let build =
        format!("{}{}.{}.{}", dice.pick(&["QP1A", "RP1A", "SKQ1", "TP1A", "UP1A", "LMY47V", "MMB29M"]), "", dice.digits(6), dice.digits(3));
    let agent = match dice.below(7) {
        0 => format!(
            "Mozilla/5.0 (Linux; Android {os}; {model}) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{chrome} Mobile Safari/537.36"
        ),
        1 => format!(
            "Mozilla/5.0 (Linux; U; Android {os}; {locale}; {model} Build/{build}) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/{chrome} Mobile Safari/537.36"
        ),
        2 => format!(
            "Mozilla/5.0 (Linux; Android {os}; {model} Build/{build}; wv) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/{chrome} Mobile Safari/537.36"
        ),
        3 => format!(
            "Mozilla/5.0 (Linux; U; Android {os}; {locale}; {model}) AppleWebKit/534.30 (KHTML, like Gecko) Version/4.0 Mobile Safari/534.30"
        ),
        4 => format!(
            "Mozilla/5.0 (Linux; U; Android {os}; {locale}; {model} Build/{build}) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/{chrome} UCBrowser/13.4.0.1306 Mobile Safari/537.36"
        ),
        5 => format!("Dalvik/2.1.0 (Linux; U; Android {os}; {model} Build/{build})"),
        _ => format!("Mozilla/5.0 (Android {os}; Mobile; rv:{v}.0) Gecko/{v}.0 Firefox/{v}.0", v = dice.range(68, 140)),
    };
    (agent, format!("android {model} {locale}"))
}

fn old_browser(dice: &mut Dice) -> (String, String) {
    let locale = dice.pick(list("locales"));
    let gecko = format!("20{:02}{:02}{:02}{:02}", dice.range(4, 12), dice.range(1, 12), dice.range(1, 28), dice.below(24));
    let system = dice.pick(&["Windows NT 5.1", "Windows NT 6.1", "Windows 98", "Win98", "Windows NT 6.0", "Windows NT 5.0"]);
    let clr = dice.pick(&[
        ".NET CLR 2.0.50727",
        ".NET CLR 3.5.30729",
        "Media Center PC 6.0",
        "SLCC2",
        "InfoPath.2",
        "Tablet PC 2.0",
        "FunWebProducts",
    ]);
    let agent = match dice.below(9) {
        0 => format!(
            "Mozilla/5.0 (Windows; U; {system}; {locale}; rv:1.9.2.{}) Gecko/{gecko} Firefox/3.6.{}",
            dice.range(1, 28),
            dice.range(1, 28)
        ),
        1 => format!("Mozilla/5.0 (X11; U; Linux i686; {locale}; rv:1.8.1.{}) Gecko/{gecko} SeaMonkey/1.1.9", dice.range(1, 20)),
        2 => format!("Mozilla/5.0 (Macintosh; U; PPC Mac OS X; {locale}) AppleWebKit/125.2 (KHTML, like Gecko) Safari/125.8"),
        3 => format!("Mozilla/4.0 (compatible; MSIE {}.0; {system}; Trident/4.0; {clr}; {clr})", dice.range(5, 8)),
        4 => format!("Opera/9.{} ({system}; U; {locale}) Presto/2.{}.{}", dice.range(20, 80), dice.range(1, 12), dice.range(10, 400)),
        5 => format!("Mozilla/5.0 (compatible; MSIE 10.0; Windows NT 6.2; WOW64; Trident/6.0; {clr})"),
        6 => format!("Mozilla/5.0 (X11; U; Linux x86_64; {locale}) AppleWebKit/533.3 (KHTML, like Gecko) Epiphany/2.30.6 Safari/533.3"),
        7 => format!(
            "Opera/9.80 (J2ME/MIDP; Opera Mini/{}.0/{}.{}; U; {locale}) Presto/2.12.423 Version/12.16",
            dice.range(4, 9),
            dice.range(20, 70),
            dice.digits(4)
        ),
        _ => format!(
            "Mozilla/5.0 (iPhone; U; CPU iPhone OS 4_3_{} like Mac OS X; {locale}) AppleWebKit/533.17.9 (KHTML, like Gecko) Version/5.0.2 Mobile/8J2 Safari/6533.18.5",
            dice.range(1, 5)
        ),
    };
    (agent, format!("old {locale} {system}"))
}

fn desktop(dice: &mut Dice) -> (String, String) {
    let chrome = version(dice);
    let system = dice.pick(list("systems"));
    let product = dice.pick(list("products"));
    let agent = if dice.chance(25) {
        let v = dice.range(60, 140);
        format!("Mozilla/5.0 ({system}; rv:{v}.0) Gecko/20100101 Firefox/{v}.0")
    } else if dice.chance(30) {
        format!(
            "Mozilla/5.0 ({system}) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/{}.{} Safari/605.1.15",
            dice.range(10, 18),
            dice.below(7)
        )
    } else {
        format!(
            "Mozilla/5.0 ({system}) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{chrome} Safari/537.36 {product}{}.{}",
            dice.range(1, 120),
            dice.below(20)
        )
    };
    (agent, format!("desktop {system} {product}"))
}

fn phone_app(dice: &mut Dice) -> (String, String) {
    let app = dice.pick(list("apps"));
    let (major, minor) = (dice.range(1, 30), dice.below(20));
    let locale = dice.pick(list("locales"));
    let model = dice.pick(list("models"));
    let agent = match dice.below(7) {
        0 => format!("{app}/{major}.{minor} (iPhone; iOS 17.{}; Scale/3.00)", dice.below(7)),
        1 => format!("{app}/{major} CFNetwork/1{} Darwin/2{}.{}.0", dice.digits(3), dice.range(0, 4), dice.below(7)),
        2 => format!("{app}/{major}.{minor} (Android {}; {model}; {locale})", dice.range(7, 15)),
        3 => format!("{app} {major}.{minor} ({model}; {locale}; id={})", dice.hex(8)),
        4 => format!(
            "com.example.{}/{major}.{minor} iOS/17.{} model/iPhone14,{} hwp/t8110 build/21E236",
            app.to_lowercase().replace(' ', "-"),
            dice.below(7),
            dice.range(2, 8)
        ),
        5 => format!("{app}/{major}.{minor}.{minor} okhttp/4.{}.0", dice.range(0, 12)),
        _ => format!("{app}/{major}.{minor} Alamofire/5.{}.1; {locale}; {model}", dice.below(9)),
    };
    (agent, format!("app {app}"))
}

fn bot(dice: &mut Dice) -> (String, String) {
    let name = dice.pick(list("bots"));
    let (major, minor) = (dice.range(1, 12), dice.below(10));
    let chrome = version(dice);
    let page = format!(
        "http{}://{}.example{}",
        dice.pick(&["", "s"]),
        name.to_lowercase().replace([' ', '\''], "-"),
        dice.pick(&["", "/bot.html", "/about?x=1&y=2", "/robots.php", "/;info"])
    );
    let agent = match dice.below(7) {
        0 => format!("Mozilla/5.0 (compatible; {name}/{major}.{minor}; +{page})"),
        1 => format!("{name}/{major}.{minor} (+{page})"),
        2 => format!(
            "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; {name}/{major}.{minor}; +{page}) Chrome/{chrome} Safari/537.36"
        ),
        3 => format!("{name} ({page}; mailto:bot@{}.example)", name.to_lowercase().replace([' ', '\''], "-")),
        4 => format!(
            "Mozilla/5.0 (Linux; Android 6.0.1; Nexus 5X Build/MMB29P) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{chrome} Mobile Safari/537.36 (compatible; {name}/{major}.{minor}; {page})"
        ),
        5 => format!("{name}/{major}.{minor}; {page}; contact 'ops' <ops@bot.example>"),
        _ => name.to_owned(),
    };
    (agent, format!("bot {name}"))
}

fn reader(dice: &mut Dice) -> (String, String) {
    let name = dice.pick(list("readers"));
    let agent = match dice.below(5) {
        0 => format!(
            "{name}/{}.{} (Linux; https://{}.example; {} subscribers)",
            dice.range(1, 20),
            dice.below(20),
            name.to_lowercase().replace(' ', ""),
            dice.range(1, 900)
        ),
        1 => format!(
            "{name}/{}.{} ({}; {}; allow-brotli)",
            dice.range(1, 20),
            dice.below(20),
            dice.pick(&["Linux", "Windows", "macOS", "iOS"]),
            dice.pick(list("locales"))
        ),
        2 => format!(
            "{name} ({}; feed-id={})",
            dice.pick(&["like FeedFetcher-Google", "+http://feeds.example/", "1 subscriber"]),
            dice.digits(9)
        ),
        3 => format!("Mozilla/5.0 (compatible; {name}/{}.{}; like FeedFetcher-Google)", dice.range(1, 20), dice.below(20)),
        _ => format!(
            "{name}/{}.{} (feed parser; version 1.5; {}; <https://feeds.example> Allow like Gecko)",
            dice.range(1, 20),
            dice.below(20),
            dice.digits(6)
        ),
    };
    (agent, format!("reader {name}"))
}

fn library(dice: &mut Dice) -> (String, String) {
    let name = dice.pick(list("libraries"));
    let (major, minor) = (dice.range(0, 20), dice.below(30));
    let agent = match dice.below(6) {
        0 => format!("{name}/{major}.{minor}.{}", dice.below(10)),
        1 => format!("{name}/{major}.{minor} (linux; amd64) go/go1.{}", dice.range(12, 23)),
        2 => format!(
            "{name}/{major}.{minor} ({}; {}; {})",
            dice.pick(&["Linux", "Darwin", "Windows NT 10.0"]),
            dice.pick(&["x86_64", "arm64", "id"]),
            dice.pick(list("locales"))
        ),
        3 => format!(
            "{name}/{major}.{minor} {{\"ci\":null,\"cpu\":\"x86_64\",\"implementation\":{{\"name\":\"CPython\",\"version\":\"3.{minor}.2\"}},\"system\":{{\"name\":\"Linux\"}}}}"
        ),
        4 => format!("{name}/{major}.{minor} node/v{}.{}.0 linux x64 workspaces/false", dice.range(12, 22), dice.below(20)),
        _ => format!("{name}/{major}.{minor} (Linux; exec-env/AWS_Lambda_python3.{minor}; md/arch#x86_64)"),
    };
    (agent, format!("library {name}"))
}

fn console(dice: &mut Dice) -> (String, String) {
    let name = dice.pick(list("consoles"));
    let extra = dice.pick(&[
        "NF/3.0.1.15.16",
        "LG NetCast.TV-2013",
        "HbbTV/1.4.1 (+DRM; Samsung; SmartTV2021; T-KSU2EAKUC; Tizen; urn:samsungtv:familyname:21_KANTSU2E; )",
        "WebAppManager",
        "OPR/46.0",
        "HbbTV/1.2.1 (; LGE ;NetCast 4.0 ;03.10.19 ;1.0M ;)",
        "CE-HTML/1.0 NETTV/4.3.1",
        "Model/Sony-KD-65X9",
    ]);
    (
        format!(
            "Mozilla/5.0 ({name} {}.{}) AppleWebKit/{}.{} (KHTML, like Gecko) {extra}",
            dice.range(1, 12),
            dice.below(60),
            dice.range(531, 606),
            dice.range(1, 30)
        ),
        format!("console {name} {extra}"),
    )
}

fn company(dice: &mut Dice) -> (String, String) {
    let name = dice.pick(list("toolbars"));
    (
        format!(
            "Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 6.{}; Trident/{}.0; SLCC2; .NET CLR 2.0.{}; {name}; .NET4.0C; .NET4.0E)",
            dice.below(4),
            dice.range(4, 7),
            dice.digits(5)
        ),
        format!("company {name}"),
    )
}

fn tool(dice: &mut Dice) -> (String, String) {
    let name = dice.pick(list("tools"));
    (
        format!(
            "{}{name}/{}.{}.{} ({}; {})",
            dice.pick(&["", "Mozilla/5.0 (Linux) "]),
            dice.range(1, 30),
            dice.below(20),
            dice.below(20),
            dice.pick(&["Linux; id", "Android 13", "Darwin; it", "x86_64; rev. 7", "Windows NT 10.0"]),
            dice.pick(list("locales"))
        ),
        format!("tool {name}"),
    )
}

fn mail_or_office(dice: &mut Dice) -> (String, String) {
    let name = dice.pick(list("offices"));
    (
        format!(
            "{name}/{}.0 (Windows NT 10.0; {} {}.0.{}; Pro; {})",
            dice.range(12, 16),
            name.split(['/', ';']).next().unwrap_or(name),
            dice.range(12, 16),
            dice.digits(5),
            dice.pick(list("locales"))
        ),
        format!("office {name}"),
    )
}

fn in_app(dice: &mut Dice) -> (String, String) {
    let locale = dice.pick(list("locales")).replace('-', "_");
    let agent = match dice.below(6) {
        0 => format!(
            "Mozilla/5.0 (iPhone; CPU iPhone OS 16_{} like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 Instagram 2{}.0.0.13.1 (iPhone13,2; iOS 16_6; {locale}; {}; scale=3.00; 1170x2532; {})",
            dice.below(7),
            dice.digits(2),
            dice.pick(list("locales")),
            dice.digits(9)
        ),
        1 => format!(
            "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 [FBAN/FBIOS;FBAV/4{}.0;FBBV/{};FBDV/iPhone14,5;FBMD/iPhone;FBSN/iOS;FBSV/17.4;FBSS/3;FBCR/{};FBID/phone;FBLC/{locale};FBOP/5]",
            dice.digits(2),
            dice.digits(9),
            dice.pick(&["O2", "T-Mobile", "AT&T", "Vodafone.de", "Three's", ""])
        ),
        2 => format!(
            "[FBAN/FB4A;FBAV/3{}.0.0.1;FBDM/{{density=2.0,width=720,height=1456}};FBLC/{locale};FBCR/{};FBMF/samsung;FBPN/com.facebook.katana;FBDV/{};FBSV/10;FBCA/arm64-v8a:null;]",
            dice.digits(2),
            dice.pick(&["Jio 4G", "MTN-NG", "Orange F"]),
            dice.pick(list("models"))
        ),
        3 => format!(
            "Mozilla/5.0 (Linux; Android 12; {}) AppleWebKit/537.36 (KHTML, like Gecko) Version/4.0 Chrome/{} Mobile Safari/537.36 musical_ly_2{} JsSdk/1.0 NetType/WIFI Channel/googleplay AppName/musical_ly ByteLocale/{} Region/ID",
            dice.pick(list("models")),
            version(dice),
            dice.digits(3),
            dice.pick(list("locales"))
        ),
        4 => format!(
            "Mozilla/5.0 (Linux; Android 11; {}) AppleWebKit/537.36 Chrome/{} Mobile Safari/537.36 MicroMessenger/8.0.{}.2300(0x{}) WeChat/arm64 Weixin NetType/4G Language/{} ABI/arm64",
            dice.pick(list("models")),
            version(dice),
            dice.range(1, 40),
            dice.hex(8),
            locale
        ),
        _ => format!("Snapchat/12.{}.0.30 (iPhone12,1; iOS 17.{}; gzip; {locale}; id)", dice.range(1, 80), dice.below(6)),
    };
    (agent, format!("in-app {locale}"))
}
