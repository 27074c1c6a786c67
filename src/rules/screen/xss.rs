//! Script injection by structure: markup that runs, handlers after a quote, script schemes with a call, ways out of a string of JavaScript.
//!
//! Shape: patterns over the normal form. Markup as such passes (`<b>`, `if(a<b)`), what runs or loads does not.
//! Source: the HTML parsing rules: what opens a tag, what separates attributes, which elements and attributes run or load.

pub(super) const CERTAIN: &[&str] = &[
    r#"<[\s/]*script\b[^&>]*>?[^&]*[(=`'"\[;/]|<[\s/]*[a-z]+:script\b"#,
    r#"<\s*(?:animate|set|animatetransform|handler|listener|use|foreignobject|image)\b[^>]*(?:\bon[a-z]+|attributename|href|values|to)\s*=[^>]*"#,
    // A handler on any element, known or made up; the tag need not end.
    r#"<[a-z!/?][^>]*[\s/"'`]on[a-z]{3}[a-z]*\s*=\s*[^\s>]"#,
    r#"<[a-z][^>]*[\s/"'`](?:src|href|action|formaction|data|xlink:href|srcdoc|poster|background|dynsrc|lowsrc|values|to|from|code|classid|content|style)\s*=\s*["'`]?\s*(?:j\s*a\s*v\s*a\s*s\s*c\s*r\s*i\s*p\s*t|vbscript|livescript|data\s*:\s*(?:text|application|image/svg)|expression\s*\(|behaviou?r\s*:|-moz-binding)"#,
    r#"<[a-z][^>]*[\s/"'`]style\s*=[^>]*(?:expression\s*\(|behaviou?r\s*:|-moz-binding|javascript:)"#,
    // Behind a quote that ends an attribute.
    r#"["'`][\s/>]*[\s/"'`]on[a-z]{4}[a-z]*\s*=\s*["'`]?[^&"'`\s]*(?:[(`\[]|location|document|window|eval)"#,
    r#"[\s/]on(?:error|load|click|dblclick|focus|focusin|focusout|blur|mouse[a-z]+|key[a-z]+|pointer[a-z]+|animation[a-z]+|transition[a-z]+|toggle|begin|end|start|finish|submit|change|input|drag[a-z]*|drop|copy|cut|paste|wheel|scroll[a-z]*|resize|message|hashchange|popstate|pageshow|touch[a-z]+|invalid|auxclick|contextmenu|canplay[a-z]*|play[a-z]*|readystatechange|beforeinput|beforetoggle|activate)\s*=\s*["'`]?[\w.$\[\]]*\s*[(`]"#,
    r#"["'`]\s*(?:autofocus|accesskey|style)\s*[=\s].*\bon[a-z]{4}[a-z]*\s*="#,
    r#"["'`]\s*style\s*=\s*["'`]?[^"'`&]*(?:expression\s*\(|javascript:|behaviou?r\s*:|-moz-binding|url\s*\(\s*["']?\s*(?:javascript|data))"#,
    // Script schemes with something to run.
    r#"(?:j\s*a\s*v\s*a|v\s*b|live)\s*s\s*c\s*r\s*i\s*p\s*t\s*:\s*(?://|/\*|(?:alert|confirm|prompt|eval|fetch|import|open|document|window|location|self|top|parent|this|globalthis|settimeout|setinterval|function|write|atob|name|string|constructor|onerror|throw|new|var|let)\b[\w.$\[\]'"\\]*\s*[(`=\[\s]|[\[!~({`'"%\\-])"#,
    // A quote that ends a string, and a call.
    r#"=[^&"'`\s]*["'`][)\]}]*[;\-+*/,|&^]+(?:alert|confirm|prompt|eval)[(`][^\s)&]*[)`]"#,
];

/// What an honest text may say too.
pub(super) const LIKELY: &[&str] = &[
    // A tag with nothing in it, and a scheme with any call behind it.
    r#"<[\s/]*script\b[^&>\s]*(?:&|$|[/>]§?(?:&|$))"#,
    r#"(?:j\s*a\s*v\s*a|v\s*b|live)\s*s\s*c\s*r\s*i\s*p\s*t\s*:\s*[\w.$\[\]'"\\]+\s*[(`=\[]"#,
    r#"<\s*(?:iframe|frame|embed|object|applet|portal)\b[^>]*(?:[\s/"'](?:src|srcdoc|data|code|codebase|on[a-z]+)\s*=|>|$)"#,
    r#"<\s*base\b[^>]*\bhref\s*=|<\s*link\b[^>]*(?:\brel\s*=\s*["']?(?:stylesheet|import)|\bhref\s*=\s*["']?\s*(?:javascript|data:|vbscript|//|https?:))|<\s*meta\b[^>]*(?:http-equiv|url\s*=)|<\s*form\b[^>]*\baction\s*=|<\s*isindex\b|<\s*(?:button|input)\b[^>]*\bformaction\b"#,
    r#"<\s*style\b[^>]*>[^<]*(?:@import|expression\s*\(|javascript:|behaviou?r\s*:|-moz-binding|url\s*\()"#,
    r#"\bdata\s*:\s*(?:text/(?:html|xml|javascript)|application/(?:xhtml|xml|javascript|x-javascript))\b"#,
    r#"\bdata\s*:[^&,]*(?:;\s*base64)?,\s*(?:<|phn2|phnj|pgh0|pd94)"#,
    // Out of a string of JavaScript, into a call.
    r#"["'`}\])]\s*[)\]}]*[\s;,\-*/|&^%?:<>=!~]*\(*\s*(?:window|self|top|parent|globalthis|this|frames)?[.\[("'`]*(?:alert|confirm|prompt|eval|settimeout|setinterval|execscript|importscripts|fetch|import|atob)["'`)\]]*\s*[(`]\s*[^\s)]"#,
    r#"["'`}\])]\s*[)\]}]*\s*[;,\-*/|&^%?:]\s*(?:window\.|self\.|top\.|parent\.)*(?:document\s*\.\s*(?:cookie|domain|write|writeln|location)|location\s*(?:\.\s*(?:href|replace|assign|hash)|=)|new\s+(?:image|function|xmlhttprequest|websocket)\b|onerror\s*=)"#,
    r#"\b(?:alert|confirm|prompt|eval|write|writeln|fetch|settimeout|atob|btoa|encodeuricomponent|escape|log)\s*[(`]\s*["'`]?\s*(?:(?:window|self|top|this|parent)\s*[.\[]\s*["'`]?\s*)*(?:document\s*[.\[]\s*["'`]?\s*(?:cookie|domain|location)|localstorage|sessionstorage|string\s*\.\s*fromcharcode|location\s*\.\s*hash|atob\s*\(|unescape\s*\(|name\s*\))"#,
    r#"\bstring\s*\.\s*fromcharcode\s*\(\s*\d|\beval\s*\(\s*(?:atob|string|unescape|decodeuri|location|name|window)"#,
    r#"\b(?:document|window|self|top|parent|globalthis|this)\s*\[\s*["'`/][^\]]*\]\s*(?:\[|\(|=|`|\.)|\bconstructor\s*[.(\[]\s*["'`(]?\s*(?:constructor|prototype|alert|return)"#,
    r#"\blocation\s*(?:\.\s*href\s*)?=\s*["'`]?\s*(?:javascript|name|location\.hash|atob|//|https?:)[^&]*(?:cookie|\()"#,
    r#"\(!\[\]\s*\[\]\)|\[\]\[\(|\[\]\s*\[["'`](?:filter|map|find|constructor|sort|flat|at)|\$=~\[\]"#,
    // A call where a value begins, or between operators.
    r#"=[^&\s]*[;\-+*^|,/!~({]\s*(?:alert|confirm|prompt|eval|fetch|import)\s*[(`]\s*[^\s)]|=(?:alert|confirm|prompt)\s*[(`]\s*(?:\d|['"/`]?(?:xss|document|x\b|\d))|\$\{\s*(?:alert|confirm|prompt|eval|fetch|document|window)\b|["'`]\s*(?:in|instanceof|\?|\+|-|,)\s*(?:alert|confirm|prompt|eval|document\.|window\.)|["'`]\s*document\s*\.\s*(?:cookie|domain|location)\b|[;=]\s*alert\s*\(\s*\d+\s*\)|[&¤]\{\s*\w+\("#,
    r#"-->\s*(?:alert|confirm|prompt)\s*\(|<[^>]*expression\\?(?:28|\()|expr/?\*?.*ession\s*\(|\bng-(?:click|init|focus|mouse\w+|app|csp|bind)\s*=|<html\b[^>]*manifest|java(?:&#\d;?)+script|=document\.write\s*\(\s*\d|\$event\.view"#,
    r#"<\s*(?:layer|ilayer|bgsound|xss|noembed|plaintext|xmp|frameset)\b[^>]*(?:src|on[a-z]+|>)"#,
    // Character references without end, as browsers take them.
    r#"(?:&#x?0*[0-9a-f]{2,3}){4,}|&#x0*3c\s*[a-z/!]|&#0*60\s*[a-z/!]"#,
    // Declarations and includes that a server or an XML parser runs.
    r#"<!--\s*\#\s*(?:exec|include|echo|config|printenv|set|fsize|flastmod|if|elif)\b|<!entity\b|<!doctype\s+[^>\[]*(?:\[|system|public\s+["'][^"']*["']\s*["'](?:file|http|ftp))|<\?xml-stylesheet\b[^>]*href\s*=\s*["']?\s*(?:javascript|data|https?:)|<\?xml\b[^>]*\?>\s*<!|<xsl:|xmlns:xsl|<xi:include|<x:script"#,
];
