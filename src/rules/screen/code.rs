//! Everything else that is run where it should be read: commands, templates, lookups, included files, split headers.
//!
//! Shape: patterns over the normal form, by family.

/// What `«name»` stands for in patterns.
pub(super) fn words(name: &str) -> &'static str {
    match name {
        "val" => r"[?&][^&=]*=",
        "path" => r"(?:/(?:usr/)?(?:local/)?s?bin/)?",
        "wrap" => {
            r"(?:(?:sudo|nohup|time|exec|command|env(?:\s+\w+=\w+)?|eval|xargs|busybox|screen\s+-\w+|tmux\s+new|\$(?:shell|0)\s+-c|if|while|then|do|cmd(?:\.exe)?\s+/[ck]|%comspec%\s+/[ck]|[({!@])\s*)*"
        }
        "plain" => {
            r"(?:wget|curl|fetch|nc|ncat|netcat|socat|bash|sh|zsh|ksh|csh|dash|python[23]?|perl|ruby|php|node|lua|gcc|ping6?|nslookup|dig|host|traceroute|chmod|chown|awk|gawk|sed|grep|egrep|xxd|od|base64|tftp|ftp|telnet|ssh|scp|crontab|busybox|sudo|su|powershell(?:\.exe)?|pwsh|cmd(?:\.exe)?|certutil|wmic|bitsadmin|mshta|rundll32|regsvr32|schtasks|cscript|wscript|printf|uname|whoami|mkdir|mkfifo|xargs|nohup|ifconfig|ipconfig|netstat|systeminfo|tasklist|printenv|hostname|lsb_release|ps|ls|cat|tac|rm|cp|mv|id|pwd|dir|env|export|passwd|useradd|adduser|lsof|ip|iptables|reboot|shutdown|halt|poweroff|openssl|apt(?:-get)?|yum|pip[23]?|npm|git|docker|kubectl|mysql|psql|sqlite3|nmap|tcpdump|strings|rev|dd|tar|zip|unzip|gunzip|mail|sendmail|java|vim?|nano|less|tee|touch|ln|find|head|tail|more|nl|sort|cut|tr|wc|uniq|diff|stat|df|du|free|mount|kill|killall|pkill|uptime|who|last|history|alias|echo|sleep|timeout|eval|exec|source|set|read|type|which|whereis|locate|start|copy|del|net1?|reg|ver|findstr|iex|iwr|irm|gci|arp|attrib|icacls|msiexec|sc|taskkill|tree|hexdump|md5sum|rsync|screen|service|systemctl|tmux|trap|unset|ss|su|ed|aws|paste|lsblk|lscpu|dmesg|getent|groups|pgrep|sysctl|rundll32(?:\.exe)?|invoke-\w+|get-(?:process|content|childitem|service|wmiobject)|start-(?:sleep|process)|new-object|add-type)"
        }
        // Words that are no words of a text.
        "strange" => {
            r"(?:wget|curl|ncat|netcat|socat|bash|zsh|ksh|csh|python[23]?|perl|ruby|php|lua|gcc|ping6?|nslookup|traceroute|chmod|chown|gawk|sed|xxd|base64|tftp|telnet|ssh|scp|crontab|busybox|sudo|powershell(?:\.exe)?|pwsh|cmd(?:\.exe)?|certutil|wmic|bitsadmin|mshta|rundll32|regsvr32|schtasks|cscript|wscript|printf|uname|whoami|mkdir|mkfifo|xargs|nohup|ifconfig|ipconfig|netstat|systeminfo|tasklist|printenv|lsb_release|ls|cat|tac|rm|id|pwd|dir)"
        }
        // Words that are no names of columns, tags or languages either.
        "sure" => {
            r"(?:wget|curl|ncat|netcat|socat|ping6?|nslookup|traceroute|chmod|chown|gawk|sed|xxd|tftp|telnet|crontab|busybox|sudo|certutil|wmic|bitsadmin|mshta|rundll32|regsvr32|schtasks|cscript|wscript|printf|uname|whoami|mkdir|mkfifo|xargs|nohup|ifconfig|ipconfig|netstat|systeminfo|tasklist|taskkill|printenv|lsb_release|ls|pwd|arp|attrib|icacls|msiexec|hexdump|md5sum|rsync|systemctl|useradd|lsof|reboot|poweroff|unset|trap|uptime)"
        }
        // What a command goes on with, and a sentence does not.
        "arg" => {
            r#"["']?(?:-[a-z-]|/[\w.*?$/%-]|\.{1,2}/|~/|\$[\w({@]|\*|[a-z]:\\|\\\\|%[a-z]+%|https?:|ftp:|\d{1,3}\.\d|[\w-]+\.[\w./-]*\w|[|<>]\s*[\w/$]|\(|\{)"#
        }
        _ => unreachable!("a test builds every pattern"),
    }
}

/// A command behind a separator of shells, with an argument as commands have, or where a value begins.
pub(super) const COMMAND: &[&str] = &[
    // Where a value begins: nobody begins with a separator.
    r#"«val»["')]?§(?:[;|]+§«wrap»«path»«plain»(?:$|[^\w=:.,-])|¤+§«wrap»«path»«plain»(?:$|[^\w=:.,;-]))"#,
    r#"[=/]["'`)]?§\$\(\s*«wrap»«path»«plain»(?:$|[^\w=:.,])"#,
    // Behind a number, an address, a file name, the end of a string.
    r#"«val»(?:[\d.:\-]+|[^&\s;|=]*['")\]][^&\s\w]{0,3}|[\w/-]+\.[\w.]+)§[;|¤]+§«wrap»«path»«plain»(?:§(?:$|&|[;|¤\#`)])|[<>{'"]|\s+«arg»|\s+\d+§(?:$|[&;|¤\#`]))"#,
    r#"«val»[\w.@:-]+[;|¤]+§«wrap»«path»«sure»(?:$|[\s&;|¤<>(`'"{$])|«val»(?:\w{1,2}|[\w.+-]+@[\w.-]+|[\d.]+(?:\s+-\w\s+\d+)?)[;|¤\n]+§«wrap»(?:id|«sure»)(?:$|[\s&;|¤<>(`'"}])|«val»\w{1,2};«wrap»«plain»(?:[\s;(]|$)|«val»\w{1,2};(?:for|case|while|if)\s|[;|¤]§(?:\$(?:env:|psversion)|\.\(['"]|\[\w+(?:\.\w+)+\]::|invoke-\w+|start-(?:process|sleep)|get-(?:process|content|childitem|service|host)|new-object|iex\s*[('"]|gci\s+env|ls\s+env)|«val»[^&\s]*¤¤\s*(?:echo|net|ls)\s|«val»\$\(\(\d"#,
    // A blank that only a shell reads, and a function definition in a field.
    r#"\$\{?ifs\}?|[=\s]\(\)\s*\{\s*(?:[:_a-z]*\s*;?\s*\}\s*[;>]|:?;?\}|_)"#,
    // The whole value is one substitution.
    r#"«val»`\s*«wrap»«path»«plain»(?:\s[^`&]*)?`(?:$|&)"#,
];

/// What an honest text may say too.
pub(super) const LIKELY_COMMAND: &[&str] = &[
    // Wherever it stands.
    r#"(?:[;|¤`]|\$\()\s*\\?«wrap»«path»«plain»(?:\$\{?ifs\}?[\d$]*|\s+|[<>]\s*)\\?["']?(?:/[\w.*?$/%-]|\.{1,2}/|~/|[a-z]:\\|\\\\\w|%[a-z]+%|https?:|ftp:|\d{1,3}\.\d|/etc|>\s*/)|(?:[;|¤`]|\$\()\s*«wrap»«path»«strange»\s+-[a-z-]"#,
    r#"[=?][^&\s]*\$\(\s*«wrap»«path»«plain»(?:\)|\s+«arg»|\s+\d+\s*\)|\s+\w+\s*\))"#,
    r#"[=?/][^&\s`]*`\s*«wrap»«path»«plain»(?:\s[^`&]*)?`(?:$|[^\s.,;:)])"#,
    // A line of its own behind a single word.
    r#"=[^&\s]*\n\s*«wrap»«path»«plain»(?:\s*[<>|]\s*[\w/]|\s+«arg»)?[^&\s]*\s*(?:$|&)|«val»\w{1,3}\n«path»(?:id|«sure»)\n"#,
    r#"[;|¤`]\s*«wrap»(?:/(?:usr/)?(?:local/)?s?bin/)(?:«plain»|\w+)(?:$|[\s;|¤&`'"])|(?:\|\||¤¤|&&)§«wrap»«strange»\s*(?:$|&|[;|¤\#])|[;|¤]§«strange»§[;|¤`]|[;|¤`]\s*«wrap»«strange»\s+«arg»"#,
    r#"(?:[;|¤`]|\$\()\s*(?:/(?:usr/)?s?bin/)?(?:sleep\s+\d+\s*(?:[|¤\#`)]|;§(?:$|&|\#)|$|&)|ping6?\s+(?:-[cnw]\s*)?[\w-]+\.|nslookup\s+[\w-]+\.|dig\s+[\w-]+\.|(?:wget|curl)\s+[\w-]+\.\w|(?:ba|z|k|da)?sh\s+-[ci]|expr\s+\d+\s*[*+-]|rm\s+-)"#,
    r#"(?:[;|¤`]|\$\()\s*(?:/(?:usr/)?s?bin/)?(?:whoami|uname|ifconfig|ipconfig|netstat|systeminfo|printenv|tasklist|lsb_release|net1?\s+(?:user|localgroup|view)|phpinfo\(\))\s*(?:[;|¤&\#`)'"/]|$|-)"#,
    r#"/[?*\[\]]+/[\w?*]*[?*][\w?*]*\s+/|[=;|¤\s<>][^&?\s]*/(?:bin|etc|usr|dev|proc)/\w*[?*]|\$\{\w+:\d+:\d+\}|\$\{(?:path|home|shell|pwd|ifs)[%\#:~]|<<<\s*['"]|;\$\w+\$\w+|[;|¤]§\$'|\$\(rev\b"#,
    r#"=[^&\s]*§>§/(?:tmp|var)/|=<§/etc"#,
    r#"«val»[\w.:-]+§[;|¤]§«wrap»(?:ip\s+a\b|reboot|ver|ps\s+\w{1,4}|kill\s+-\d|dig\s+\w|net\s+user|reg\s+query|wmic\s+\w+|start-\w+\s+-|get-process|gci\s+\w|iex\s*\(|time\s+\w+|id\s*;?\s*\}|echo\s+\w+)\s*(?:$|[&;|¤\s()#])|«val»echo\s*(?:`|\$\([^(])|«val»[^&\s]*;§(?:if\s+\[|while\s+[:\[])|«val»[^&\s]+;\(\s*«strange»\s*\)|«val»[\w.:-]+[;|¤]§«plain»\s+«arg»"#,
];

/// Code of scripting languages where a value begins or a string ends; serialised objects.
pub(super) const CODE: &[&str] = &[
    r#"\b[oc]:[+ ]?\d{1,4}:(?:"[\w\\]+":\d{1,4}:\{)|\bc(?:os|posix|subprocess|builtins|__builtin__|nt)\n(?:system|popen|eval|exec)\b|_\$\$nd_func\$\$_|<(?:java\.|sorted-set|dynamic-proxy|tree-map>|sun\.|javax\.|com\.sun)|\btype\s*[:=]\s*['"]?(?:com\.sun|org\.apache|java)\."#,
    // The whole value is a call that runs something.
    r#"=\s*(?:<\?(?:php|=)?\s*)?(?:print|echo|die|return)?[\s(@]*(?:(?:system|passthru|shell_exec|exec|popen)\s*\(\s*['"\\]+(?:id|whoami|ls|cat|uname|pwd|dir|curl|wget|ping|sleep|nc|bash|sh|type)\b[^&]*|phpinfo\s*\(\s*-?\d*)\)*\s*;?\s*(?:\?>)?\s*(?:$|&)"#,
];

/// What an honest text may say too.
pub(super) const LIKELY_CODE: &[&str] = &[
    r#"(?:[=;|¤&({'"`@!\[>.\\]|\?php|\b(?:echo|print|return|die|new))\s*(?:(?:system|passthru|shell_exec|exec|popen|proc_open|pcntl_exec)\s*\(\s*(?:['"]\s*(?:(?:id|whoami|pwd|ls|dir|ipconfig|ifconfig|env|ps|hostname|uname|calc)\b[^,&]*['"]\s*\)|(?:cat|uname|curl|wget|nc|ncat|bash|sh|ping|nslookup|type|powershell|cmd|echo|touch|rm|rev|base64|find|ls|python|perl|php|sleep|net|tac|head|dig)\s|/|\\|\||;|\$)|[$@\[(]|base64|chr\(|hex2bin)|(?:assert|eval|preg_replace|create_function|call_user_func(?:_array)?|file_get_contents|file_put_contents|fopen|include|include_once|require_once|readfile|show_source|highlight_file|base64_decode|gzinflate|str_rot13|move_uploaded_file|unserialize|putenv|ini_set|dl|array_map|array_filter|usort|register_shutdown_function|phpinfo)\s*\(\s*(?:['"]\s*[^'"\s)]|[$@\[(]|base64|gzinflate|str_|chr\(|getcwd|__file|\d{4,}))"#,
    r#"(?:[=;|¤({'"`@!\[>.\\}]|\?php|\b(?:echo|print|return|die))\s*phpinfo\s*\(\s*-?\d*\s*\)|['"]\s*\.\s*(?:system|passthru|exec|shell_exec|phpinfo|eval)\s*\("#,
    r#"\b(?:print|echo|die|exit|var_dump|print_r|printf)\s*\(?\s*(?:(?:md5|phpinfo|system|getcwd|chr|glob|file_get_contents|shell_exec|scandir|get_current_user|php_uname)\s*\(|\d{2,}\s*\*\s*\d|['"][^'"&]*['"]\s*\.\s*['"])"#,
    r#"<\?(?:php\b|=|\s)[^&]*(?:\b(?:system|exec|passthru|popen|eval|assert|phpinfo|shell_exec|include|require|base64_\w+|file_\w+|print_r|var_dump|unlink|fopen|readfile|die|exit)\b|\$_(?:get|post|request|cookie|server|files)|`|\(|echo\s+["'\d])|[({\[@.;`]\s*\$_(?:get|post|request|cookie|server|session|files|env)\s*[\[{]|\$_(?:get|post|request|cookie)\s*[\[{][^&]*[\]}]\s*[(;]|\$\{@|\{\$\{|\$globals\s*\[|\$_\s*=\s*\(?\s*["'(]|\$\w+\s*=\s*['"][^'"&]*['"]\s*\.\s*['"]|\(\s*['"]\w+['"]\s*\.\s*['"]\w+['"]\s*\)\s*\(|\[(?:system|exec|passthru|phpinfo|assert)\]\s*\[|\(~[^&]+\)\s*\("#,
    r#"(?:[=;({'"`,+]|\bimport\b|__)\s*(?:os|subprocess|commands|sys|pty|posix|builtins|child_process|io|kernel|process)\s*\.\s*(?:(?:system|exec|execsync|spawn|spawnsync|call|run|check_output|popen|open|execute|start)\s*\(\s*\[?\s*['"]\s*(?:(?:id|whoami|pwd|ls|dir|ipconfig|ifconfig|env|ps|hostname|uname|calc)\b[^,&]*['"]\s*\)|(?:cat|uname|curl|wget|nc|ncat|bash|sh|ping|nslookup|type|powershell|cmd|echo|touch|rm|rev|base64|find|ls|python|perl|php|sleep|net|tac|head|dig)\s|/|\\|\||;|\$)|(?:popen|listdir|environ|check_output)\s*[\[(][^&]*[)\]]\s*[.\[]|__dict__)|__import__\s*\(|\b(?:require|import)\s*\(\s*['"](?:child_process|vm)['"]\s*\)|\brequire\s*\(\s*['"](?:child_process|fs|net|vm)['"]\s*\)\s*\.|process\s*\.\s*(?:mainmodule|binding)\b[.\[(]|process\.env\.\w+\s*[+)]|global\s*\.\s*process\s*\.|\bexecsync\s*\("#,
    r#"<cf(?:execute|output|file|include|query)\b|<jsp:(?:include|forward|usebean)|\bcreateobject\s*\(\s*['"]?(?:wscript|shell|scripting)|activexobject\s*\(|\beval\.me\s*\(|objectspace\.|\bsystem\.exit\s*\(|currentthread\s*\(\s*\)|\[['"]\w+['"]\]\s*\.\s*execute|\barray_walk\s*\(|\bhex2bin\s*\(\s*['"]|=exec\s+['"]|\bget_defined_vars\s*\(|\bphp_uname\s*\(|\bnew\s+(?:groovyshell|initialcontext|reflectionfunction|simplexmlelement|urlclassloader|function\s*\(\s*['"]return\s+(?:process|global|this)|system\.net)|\bos\.execl|package\.loadlib|\bpickle\.loads\s*\(|=unlink\s*\(\s*['"]|\b(?:rename|copy)\s*\(\s*['"][^&]*(?:\.php|https?:)|\b(?:__)?send(?:__)?\s*\(\s*:|subprocess\.\w+\s*\(\s*\[?\s*['"]id['"]|\bpopen\s*\(\s*['"](?:id|whoami|ls|cat)\b|\bprocess\.start\s*\(\s*['"]|=getenv\s*\(\s*['"]|=mail\s*\(.*-o\w|=print\s*`|\.setaccessible|['"]jndiname|=['"](?:\\x[0-9a-f]{2})+['"]\s*\(|\b(?:shell_exec|passthru|proc_open|pcntl_exec|call_user_func(?:_array)?|create_function|gzinflate|str_rot13|move_uploaded_file|file_put_contents|base64_decode)\s*\(\s*['"$]|\(\)\.__class__|\bglobals\(\)\s*\[|\b(?:eval|exec)\s*\(\s*(?:compile|['"]import\b|base64|bytes)|\bopen\s*\(\s*['"](?:/etc|/proc|\|)|constructor\.constructor\s*\(|\bmarshal\.load|\byaml\.(?:load|unsafe_load)\s*\(|\berb\.new|\buse\s+posix\b|\bloadstring\s*\(|objectdataprovider|typeconfusedelegate|!!(?:javax|com|org|sun)\.|java\.util\.(?:priorityqueue|hashmap|scanner)|javax\.management\.|['"]\s*\.execute\(\)|%x\(\s*\w|!ruby/(?:object|hash)|!!js/|\bexec\s*\{\s*["']|@grab(?:resolver|config)?\s*\(|\bassembly\.load\s*\(|frombase64string\s*\(\s*['"]|system\.diagnostics\.process|\[system\.[\w.]+\]::|\binclude\s*['"](?:https?:|ftp:|/|\.\.|php:|data:)|\bimport\s+(?:os|subprocess|pty|socket)\s*[;,\n]\s*\w+(?:\.\w+)*\s*\("#,
    r#"\b(?:java\.lang\.(?:runtime|process\w*|class|system|thread)\b\W{0,3}(?:\.\s*(?:getruntime|exec|start|forname|getproperty|getenv)|\)|["']?\s*,)|getruntime\s*\(\s*\)\s*\.|processbuilder\s*\(|getclass\s*\(\s*\)\s*\.\s*(?:forname|getclassloader|getresource|getmethod|getdeclared|getprotectiondomain|class)|\.forname\s*\(\s*['"]?\s*(?:java|javax)\.(?:lang|script)|javax\.(?:script|naming)\.\w+|new\s+java\.|com\.sun\.(?:org\.apache|rowset)\.|org\.apache\.(?:xalan|commons\.(?:collections|beanutils)|xbean|ibatis|tomcat\.dbcp|velocity)\.|org\.springframework\.(?:context|beans|cglib|expression)\.|ch\.qos\.logback\.core\.|javassist\.|org\.codehaus\.groovy)"#,
];

/// What needs no separator and no quote to be known as a command.
pub(super) const BARE_COMMAND: &[&str] = &[
    // An option where a name was meant.
    r#"=\s*-{1,2}(?:checkpoint-action=|use-askpass=|upload-pack=|receive-pack=|use-compress-program=|output(?:-document)?=/|to-command=|rsh=|exec=|post-file=|o\s?proxycommand=|oproxycommand)|\bproxycommand="#,
];

/// What an honest text may say too.
pub(super) const LIKELY_BARE_COMMAND: &[&str] = &[
    r#"/dev/(?:tcp|udp)/|\bcmd(?:\.exe)?\s+/[ck]\s*["']?\s*(?:dir|whoami|type|ping|net|calc|powershell|certutil|ipconfig|start|set|ver|echo\s+\S+\s*>|del|copy|curl)\b|\bpowershell(?:\.exe)?\s+(?:-(?:e|enc|encodedcommand|nop|noprofile|w\s+hidden|ep\s+bypass)\b|iex\b|\(|invoke|[^&]*(?:downloadstring|downloadfile|iex\s*\(|start-process|new-object))|(?:[?&][^&=]*=|[;|¤])\s*/bin/(?:ba|z|k|da|c)?sh(?:$|[^\w:\s]|\s+-)|(?:-e|-c|exec)[\s=:,"']+/bin/(?:ba|z|k|da|c)?sh\b"#,
];

/// What needs no quote to be known as code.
pub(super) const BARE_CODE: &[&str] = &[
    r#"com\.sun\.(?:org\.apache|rowset)\.\w|commons\.collections\d?\.functors|\bclass\.(?:module\.)?classloader|[=:]ro0ab[a-z0-9/]|!!python/|!!java|tag:yaml\.org,2002:(?:python|java)|__import__\s*\(|[=:]gasv[a-z0-9+/]{4}|[=:]aaeaaad/{3}|[=:]aced0005[0-9a-f]|[?&{,]["']?(?:@|\$)type["']?§[:=]§["']?\[?l?(?:com|org|java|javax|ch|sun|system|microsoft)\."#,
    r#"think\\+(?:app|container|request|config)|invokefunction|auto_prepend_file\s*=|allow_url_include\s*=|[?]-(?:s|n|d\s?\w+)(?:$|[=&\s])|\[#?(?:post_render|pre_render|lazy_builder|access_callback|markup|type)\]|\[\#post_render|[?&](?:_server|_request|_session|_get|_post|_cookie|_env|globals)\[|mosconfig_absolute_path"#,
];

/// Lookups and expressions of template engines.
pub(super) const TEMPLATE: &[&str] = &[
    r#"\$\{[^}&]*(?:jndi|lower|upper|env|sys|java|ctx|base64|date|main|k8s|docker|spring|bundle|log4j|script|dns|url|const|:-|::)\s*:|\$\{[^}&]*\$\{|\bjndi\s*:\s*(?:ldap|rmi|dns|iiop|nis|corba|http)s?\s*:/|\$\{jndi"#,
    r#"(?:\[\s*["']|\|\s*|\battr\s*\(\s*["']?)__(?:class|globals|mro|subclasses|bases?|init|builtins|import|dict|getattribute|getitem|code|self)__|["'})\]]\s*\.\s*__(?:class|globals|mro|subclasses|bases?|builtins)__|__(?:class|mro|bases?|init|subclasses)__\s*(?:\.\s*__(?:mro|base|globals|subclasses|bases)|\[|\(\s*\)\s*[.\[])|[?&\[.]__proto__(?:$|[\[.\]'"=&/])|=__proto__[\[.]|/__proto__/|__pro__proto__to__|\bconstructor\s*[\[.\]/=&]+\s*prototype\b"#,
    r#"%\{[^&]*(?:\#|@|ognl|multipart)|ognl\.|@java\.|@org\.|\#(?:_memberaccess|context|application|session|request|attr|parameters|rt|cmd)\b\s*[.\[=]|redirect(?:action)?:\s*[$%]\{|\bt\((?:java|org|javax)\."#,
    r#"/esi:|<!?-*esi[:\s]|<esi:(?:include|inline|vars|debug|assign|eval|choose|try)"#,
    // Arithmetic that is to be seen done, and the ways from an object to all classes.
    r#"(?:\{\{|[$\#*@]\{|<%=|\{%=)\s*['"]?\d+['"]?\s*\*\s*['"]?\d+['"]?\s*(?:\}|%>)|\{\{[^}&]*(?:__class__|__globals__|\|\s*attr\s*\(|\blipsum\b|\bcycler\b|subclasses\s*\(|popen\s*\(|constructor\s*\.\s*constructor|_self\.env)|[$\#*%@]\{[^}&]*(?:getruntime|processbuilder|\bt\s*\(\s*java)|<\#assign\b[^&]*\?new\s*\("#,
];

/// What an honest text may say too.
pub(super) const LIKELY_TEMPLATE: &[&str] = &[
    r#"\bjndi\s*:\s*(?:ldap|rmi|dns|iiop|nis|corba|http)|[\[|(]\s*["']?__(?:class|globals|mro|subclasses|bases?|init|builtins|import|dict|getattribute|getitem|code|self)__|=__proto__(?:$|['"=&/])"#,
    r#"\{\{[^}&]*(?:\d\s*[*+\-/]\s*['"]?\d|__|\bconstructor\b|\bconfig\s*[.\[|}]|\brequest\s*[.\[|]|\bself\s*[.\[]|\blipsum\b|\bcycler\b|\bjoiner\b|\bnamespace\s*\(|\|\s*(?:attr|system|exec|filter\s*\(|map\s*\(|reduce|sort\s*\()|\bpopen\b|\bimport\b|\bgetattr\b|\bmro\b|\bsubclasses\b|\bsystem\b|_self|\bapp\s*\.\s*(?:request|session|user|environment|debug)|\brange\s*\(|\bphp\b|\$on\b|\beval\b|\brequire\s*\(|\bprocess\s*\.|\bglobal\s*[.\[]|['"]\s*\.\s*__|\bdump\s*\(|#with|\$eval|\balert\s*\(|\bconstant\s*\(|secret_key|\bsettings\s*\.|=\d+\}\}|\burl_for\b|get_flashed_messages|\.items\s*\(|\.__|\['?_|\.class\b|^\{\{\s*self|\bself\s*\}|touppercase|file_excerpt|setcache|_context|\bsource\s*\(|\binclude\s*\(|\.env\b|\[\]\s*\.|""\s*\.|''\s*\.|\|\s*(?:upper|lower|length|e|raw|join)\s*\}\}\s*$)"#,
    r#"\{math\s+equation|\{\{[^}&]*(?:\d+\s*\*\*\s*\d|\|\s*int\s*\*|\.sub\.|\.exec\b|\.call\b)|\{\{\{|['"]\s*\|\s*system\b|\|\s*map\s*\(\s*['"]system|\(#\w+=|@\(\d+[+*]\d+\)|@system\.(?:io|diagnostics|net|reflection)\.|@\{\s*var\b|\$\{\.data_model|#\{env\b|\{%-?\s*(?:set\s+\w+\s*=\s*\d+\s*-?%\}\s*\{\{|if\s*\d+\s*[*+]\s*\d+|with\s+\w+\s*=\s*request)|<%=?\s*(?:\d+\s*[+*]|render\s+inline|self\.|rails\.|require\s)|\$\{\{<%|(?:[$\#*@~%]\{|<%=?|\{\{?[=!@]?|\#\{|@\(|\[\[|\{%|\[%=?|\{%=|<\{|~\[)\s*(?:\d+\s*[*+\-/]\s*\d+|['"]\w*['"]\s*\*\s*\d)"#,
    r#"[$\#*%@]\{\s*(?:t\s*\(|\(?\s*\#|new\s|class\b|@|''\s*\.|""\s*\.|['"]\s*['"]?\s*\.\s*getclass|['"]\w*['"]\s*\.\s*\w+\(|(?:application|session|request|page)scope|param\s*[.\[]|(?:request|session)\s*\.\s*\w+\s*[.\[(]|pagecontext|facescontext|self\s*\.|runtime\b|java\.lang|system\b|_memberaccess|__|process\s*\.|global\s*\.|exec\s*\(|require\s*\(|[\w.]*\((?:1|\)))"#,
    r#"<%[=@!-]?[^&]*(?:\bsystem\b|\bexec\b|\bimport\b|`|\bfile\.|\bio\.|\beval\b|request\.|response\.|\d\s*[*+]\s*\d|runtime|\bdir\.|\benv\[|execute\s*\()|<\#\s*(?:assign|include|import|list|if)\b|freemarker\.template|\?new\s*\(\s*\)|\#(?:set|evaluate|include|parse|foreach)\s*\(\s*[$'"]|\#foreach\b|\{%-?\s*(?:import|include|debug|load|extends|raw|macro|call|with|set|for|if|print)\b[^&]*(?:\(|__|\|\s*(?:attr|safe)|\bself\b|request\.|config\.)|\{%-?\s*debug\s*-?%\}|\{%-?\s*import\s+\w+\s*-?%\}|\{%-?\s*(?:extends|include)\s*["'](?:https?:|/)|get_admin_log|\{(?:php|system|include\s+file|if\s+(?:phpinfo|system|exec))\b[^&]*\}|\{\$smarty\.|\bth:\w+\s*=\s*["']\s*\$\{"#,
];

/// Files and schemes that no parameter of an honest request names, and ways up inside a parameter.
///
/// Shape: who writes about a file goes on with a blank and a word; who wants it opened ends there.
pub(super) const INCLUSION: &[&str] = &[
    r#"(?:[=:'"(,|]|^|://)\s*(?:smb|msl|phar|expect|gopher|dict|zip|glob|ogg|ssh2(?:\.\w+)?|rar|compress\.\w+|zlib|netdoc|jar|tftp|mailto:.*bcc)\s*:\s*/{1,2}|[=]\s*(?:ldaps?|sftp)\s*:\s*/{1,2}[^&\s/]+(?::\d+)?/?(?:\w+)?(?:$|&)|[='"]\s*(?:view-source:\s*)?file\s*:\s*/+(?:etc|proc|var|usr|home|root|tmp|dev|opt|app|srv|mnt|run|boot|[a-z]:[/\\]+(?:windows|winnt|boot|inetpub)|localhost|[\d.]+/|\.)|\bphp://(?:filter|input|fd|memory|temp|stdin|output)(?:$|[^\w\s]|\s*&)|\bphp://filter/|\bphar://|\bconvert\.base64|\bdata:(?://)?(?:;|text/plain|application/x-httpd)[^&]*base64,|jar:(?:https?|file):"#,
    // Ways up that end in what is not to be read, three of them or more with a file behind, one in disguise.
    r#"(?:\.\.[/\\]+){3,}(?:[\w.-]+[/\\]*)*\s*(?:$|[^\w\s./-])|(?:^|[/\\=])\.\.\.\.?[/\\]+\.\.|\.\.\.\.(?://|\\\\)|\.\.\\\.\.\\|\.\.;/|\.\./\./|(?:\.\.[/\\]+)+(?:[\w.-]+[/\\]+)*(?:etc|proc|windows|winnt|\.env|\.git|\.ssh|\.aws|\.htaccess|\.htpasswd|web-inf|wp-config|config\.(?:php|inc|ya?ml|json|ini|xml)|(?:parameters|database|secrets?|settings)\.\w+|passwd|shadow|id_rsa|boot\.ini|win\.ini|web\.config|global\.asax|\w+\.(?:log|conf|ini|php|asp|jsp|pem|key|bak|sql|py|rb|pl|ya?ml|toml|properties))(?:[/\\][\w./\\-]*)?\s*(?:$|[^\w\s./\\-])"#,
    // The whole value is a file of secrets, or the metadata of a cloud.
    r#"=\s*[/\\]*etc[/\\]+(?:passwd|shadow)(?:-|\x00[^&]*)?\s*(?:$|&)|=\s*(?:file:/+)?[a-z]:[/\\]+(?:windows|winnt)[/\\]+(?:win\.ini|system32[/\\][^&\s]*)\s*(?:$|&)|=\s*/proc/self/(?:environ|cmdline|fd/\d+|maps)\s*(?:$|&)|=\s*(?:https?:)?//(?:[^/&@\s]*@)?(?:169\.254\.169\.254|metadata\.google\.internal|metadata\.tencentyun\.com|100\.100\.100\.200)\b"#,
];

/// What an honest text may say too.
pub(super) const LIKELY_INCLUSION: &[&str] = &[
    r#"=(?:\.\.[/\\]+){2,}(?:$|&)"#,
    r#"(?:[=:|"'(<>,;`.&?*%}¤-]|[/\\]{2}|^)§[/\\]*(?:\.{1,2}[/\\]+)*etc[/\\]+(?:\.[/\\]+)*(?:passwd|shadow|group|gshadow|issue|hosts|fstab|crontab|sudoers|ssh|nginx|apache2?|httpd|mysql|resolv\.conf|os-release|motd|hostname|my\.cnf|php|network|init\.d|environment|profile|services|redhat-release|debian_version|lsb-release|exports|kubernetes|docker|ssl|letsencrypt|cron\.\w+|pam\.d|rc\.\w+|security|default)(?:[/\\][\w./\\-]*)?(?:-|%00|\x00|\.\w{2,4})?\s*(?:$|[^\w\s./\\-])"#,
    r#"(?:[=|"'(<>,;`.&?*%}¤-]|//|^)[/\\]*(?:proc[/\\]+(?:self|\d+|version|cmdline|cpuinfo|mounts|net|sched_debug|environ)\b[\w./\\-]*|var[/\\]+(?:log|mail|spool|run|lib)[/\\]+[\w./\\-]+|usr[/\\]+local[/\\]+(?:apache|etc|nginx)[\w./\\-]*|usr[/\\]+(?:local|share)[\w./\\]*pearcmd(?:\.php)?|root[/\\]+\.[\w./-]*|home[/\\]+\w+[/\\]+\.\w[\w./-]*|boot[/\\]+grub|dev[/\\]+(?:random|urandom|zero|fd|shm)|run[/\\]+secrets[/\\]\w+|tmp[/\\]+sess_\w+)\s*(?:$|[^\w\s./\\-])"#,
    r#"\b[a-z]:[\\/]+(?:windows|winnt|boot\.ini|inetpub|xampp|wamp|autoexec\.bat|apache)[\w.\\/-]*\s*(?:$|[^\w\s./\\-])|[\\/=](?:boot|win|system|php)\.ini(?:%00|\x00)|[\\/](?:win|boot|system|php)\.ini\s*(?:$|[^\w\s./\\-])|windows[\\/]+(?:win\.ini|system32[\\/]\w|repair|system\.ini|debug)|winnt[\\/]+system32[\\/]|\\\\[\w-]+\.[\w.-]+\\[\w$.-]+|=\\\\\d{1,3}\.\d"#,
    r#"=(?:[^&\s]*[/\\])?\.(?:env|git|svn|hg|bzr|htaccess|htpasswd|ssh|aws|bash_history|bashrc|npmrc|dockerenv|kube|docker)(?:[/\\][\w./-]*)?(?:\.\w+)?(?:%00|\x00)?(?:$|&)|=(?:[^&\s]*[/\\])?(?:web-inf|meta-inf)[/\\]|=(?:[^&\s]*[/\\])(?:wp-config\.php|id_(?:rsa|dsa|ed25519|ecdsa))(?:$|&)|=(?:wp-config\.php|id_(?:rsa|dsa|ed25519|ecdsa))(?:$|&)"#,
    r#"=\s*(?:https?:)?/*(?:169\.254\.169\.254|metadata\.(?:tencentyun|google|azure)\b|unix:/)|=\s*https?://(?:localhost|unix)(?::(?:22|25|2375|2379|3306|5432|5984|6379|8500|9000|9200|11211|27017)\b|/server-status|:/)|://(?:[^/&@]*@)?(?:169\.254\.169\.254|metadata\.tencentyun\.com|metadata\.google\.internal|100\.100\.100\.200|0xa9fea9fe|2852039166|\[?::ffff:a9fe:a9fe|\[fd00:ec2::254\]|instance-data)"#,
    // A program fetched from elsewhere into a parameter that names a page.
    r#"=\s*(?:(?:https?|ftp):)?/{2,3}[^&\s]+\.(?:txt|php|asp|jsp|gif|jpe?g|png)\?{1,2}(?:$|&|\s)|=\s*(?:https?|ftp)://[^&\s/]+/(?:[^&\s]*/)?(?:shell|c99|r57|evil|backdoor|webshell|cmd\.)[\w.-]*|=\s*ftp://[^&\s/@]+:[^&\s/@]+@[^&\s]+|=\s*(?:https?:)?//[^&\s?]+/\w*(?:shell|evil|r57|c99|cmd|rce|exploit|payload)\w*\.(?:php|txt|asp|jsp|sh|pl)\b"#,
];

/// A line end and a field or status line behind it. A line end alone passes: texts of several lines are sent by forms.
pub(super) const SPLITTING: &[&str] = &[
    r#"=[^&\s]*\n+\s*(?:(?:set-cookie2?|location|refresh|content-(?:type|length|encoding)|transfer-encoding|access-control-[a-z-]+)\s*:|http/[12])"#,
];

/// What an honest text may say too.
pub(super) const LIKELY_SPLITTING: &[&str] = &[
    r#"\n\s*(?:set-cookie2?|content-(?:type|length|encoding|disposition|security-policy)|transfer-encoding|access-control-[a-z-]+|x-[a-z][a-z-]+|cache-control|last-modified|user-agent|referer|mime-version)\s*:|\n\s*(?:location|refresh|link)\s*:\s*(?:https?:|/|<|\d+\s*;)|\n\s*b?cc\s*:\s*\S+@|[=?&][^&\s]*\n+\s*(?:host|age|etag|vary|via|date|pragma|expires|allow|cookie|server|subject|reply-to|return-path|from|sender|status|connection|upgrade|authorization|accept|[a-z]+-[a-z-]+)\s*:"#,
    r#"=[^&\s]*\n+\s*http/\d|=\S+\shttp/1\.[01]\n|\n<\s*(?:html|script|!doctype|svg|body)\b|\n\s*(?:get|post|head|put|delete|options)\s+/\S*\s+http|\n\s*(?:flushall|config\s+set|slaveof|eval\s+["'\d]|helo\s|ehlo\s|mail\s+from|rcpt\s+to|stat\s+items|delete\s+\w+\s*(?:\n|$)|gets?\s+\w+\n|quit\s*(?:\n|$))|[=?&][^&\s]*\n\s*(?:set\s+\w+\s+[\w\d]+(?:\s+\d+)*\s*(?:\n|$)|\w?\d{3}\s+(?:login|select|list)\b)"#,
];
