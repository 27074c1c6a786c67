//! Everything else that is run where it should be read: commands, templates, lookups, included files, split headers.
//!
//! Shape: patterns over the normal form, by family.

/// A command behind a separator of shells, with an argument as commands have.
pub(super) const COMMAND: &[&str] = &[
    r#"(?:[;|&\n`]|\$\(|%0a)\s*\\?(?:/(?:usr/)?(?:local/)?s?bin/)?(?:cat|tac|nl|head|tail|ls|dir|wget|curl|fetch|nc|ncat|netcat|socat|bash|sh|zsh|ksh|csh|dash|python[23]?|perl|ruby|php|node|lua|gcc|ping6?|nslookup|dig|host|traceroute|sleep|rm|chmod|chown|cp|mv|kill|awk|gawk|sed|grep|find|xxd|od|base64|tftp|ftp|telnet|ssh|scp|crontab|busybox|sudo|su|mail|tar|powershell(?:\.exe)?|cmd(?:\.exe)?|certutil|wmic|bitsadmin|mshta|rundll32|regsvr32|net1?|reg|schtasks|echo|printf|uname|id|which|whereis|touch|mkdir|mkfifo|tee|xargs|env|export|exec|nohup|timeout|open|start|copy|del|type|more)(?:\$\{?ifs\}?[\d$]*|[\s<>]+|\$ifs\$\d)\\?["']?(?:-[a-z-]|/[\w.*?$/%-]|\.{1,2}/|\./|~/|\$[\w({@]|\*|[a-z]:\\|%[a-z]+%|https?:|ftp:|\d{1,3}\.\d|\|\s*\w|/etc|>\s*/)"#,
    r#"(?:[;|&\n`]|\$\()\s*(?:/(?:usr/)?s?bin/)?(?:sleep\s+\d+\s*(?:[;|&\#`)]|$)|ping6?\s+(?:-[cnw]\s*)?[\w.-]+|nslookup\s+[\w-]+\.|dig\s+[\w-]+\.|(?:wget|curl)\s+[\w-]+\.\w|cat\s+\w+\.\w+|(?:ba|z|k|da)?sh\s+-[ci]|echo\s+\S+\s*(?:[|>`)]|$|&)|expr\s+\d+\s*[*+-]|touch\s+\w|rm\s+-)"#,
    r#"(?:[;|&\n`]|\$\()\s*(?:/(?:usr/)?s?bin/)?(?:whoami|uname|ifconfig|ipconfig|netstat|systeminfo|printenv|tasklist|lsb_release|net1?\s+user|phpinfo\(\))\s*(?:[;|&\#`)'"/]|$|-)"#,
    r#"(?:\|\|?|&&|;)\s*(?:/(?:usr/)?s?bin/)?(?:id|ls|pwd|ps|dir|env|set|w|who|ver)\s*(?:[;|\#`]|&&)|(?:\|\||&&)\s*(?:id|ls|pwd|ps|dir|env|whoami)\s*(?:$|&)|[;|]\s*(?:/(?:usr/)?s?bin/)(?:id|ls|cat|pwd|sh|bash|ps)\b|[\w'")]\s*[;|]\s+(?:id|ls|pwd|dir|whoami)\s*(?:$|\#|&)|=\s*[;|]\s*(?:id|ls|pwd|dir|whoami|env)\s*(?:$|&)|[=\w][;|](?:ls|dir|whoami|pwd)(?:$|&)|=[\w.]+[|]id(?:$|&)"#,
    r#"\$\(\s*(?:id|ls|pwd|whoami|uname|hostname|cat\s|sleep\s+\d|curl\s|wget\s|nslookup\s|ping\s|echo\s|printf\s|expr\s|\(|</)|`\s*(?:id|whoami|uname(?:\s+-a)?|hostname|ls|pwd|sleep\s+\d+|ping\s+-.*|nslookup\s+.*|cat\s+/.*|curl\s+http.*|wget\s+http.*)\s*`"#,
    r#"\$\{?ifs\}?|\(\)\s*\{\s*[:_a-z]*\s*;?\s*\}\s*[;>]|\(\)\s*\{\s*:?;?\}|>\s*/dev/null|2>&1|\|\s*(?:ba|z|da)?sh\s*(?:$|&|;|-)|/[?*\[\]]+/[\w?*]*[?*][\w?*]*\s+/|c''at|c""at|w''hoami|\bca\\t\b"#,
];

/// Code of scripting languages where a value begins or a string ends; serialised objects.
pub(super) const CODE: &[&str] = &[
    r#"(?:[=;|&({'"`@!\[>]|\?php)\s*(?:system|passthru|shell_exec|exec|popen|proc_open|pcntl_exec|assert|eval|preg_replace|create_function|call_user_func(?:_array)?|file_get_contents|file_put_contents|fopen|include|include_once|require|require_once|readfile|show_source|highlight_file|base64_decode|gzinflate|str_rot13|move_uploaded_file|unserialize|putenv|ini_set|dl|phpinfo)\s*\(\s*(?:['"$@\[(]|base64|gzinflate|str_|chr\(|getcwd|__file|\)|\d{4,})|\b(?:print|echo|die|var_dump)\s*\(?\s*(?:md5|phpinfo|system|getcwd|chr)\s*\("#,
    r#"<\?(?:php\b|=|\s)[^&]*(?:[;(]|\?>)|\$_(?:get|post|request|cookie|server|session|files|env)\s*[\[{]|\$\{@|\{\$\{|\$globals\s*\["#,
    r#"(?:[=;({'"`,]|\bimport\b|__)\s*(?:os|subprocess|commands|sys|pty|posix|builtins|child_process)\s*\.\s*(?:system|popen|exec|execsync|spawn|spawnsync|call|check_output|run|listdir|environ|__dict__)\s*[\[(]|__import__\s*\(|\brequire\s*\(\s*['"](?:child_process|fs|net|vm)['"]\s*\)\s*\.|process\s*\.\s*(?:mainmodule|binding|env)\b[.\[(]|global\s*\.\s*process\s*\.|\bexecsync\s*\("#,
    r#"\b(?:java\.lang\.(?:runtime|process\w*|class|system|thread)\b\W{0,3}(?:\.\s*(?:getruntime|exec|start|forname|getproperty|getenv)|\)|["']?\s*,)|getruntime\s*\(\s*\)|processbuilder\s*\(|getclass\s*\(\s*\)\s*\.|\.forname\s*\(|javax\.(?:script|naming)\.\w+)"#,
    r#"\b[oca]:\d{1,4}:(?:"[\w\\]+":\d{1,4}:\{|\{[isabd]:)|\bc(?:os|posix|subprocess|builtins|__builtin__)\n(?:system|popen|eval|exec)\b|_\$\$nd_func\$\$_"#,
];

/// What needs no separator and no quote to be known as a command.
pub(super) const BARE_COMMAND: &[&str] = &[
    r#"/dev/(?:tcp|udp)/|/bin/(?:ba|z|k|da|c)?sh\b|\bcmd(?:\.exe)?\s+/[ck]\b|\bpowershell(?:\.exe)?\s+-(?:e|enc|c|command|nop|w|ep|exec)\b"#,
];

/// What needs no quote to be known as code.
pub(super) const BARE_CODE: &[&str] =
    &[r#"\bclass\.(?:module\.)?classloader|[=:]ro0ab[a-z0-9/]|!!python/|!!java|tag:yaml\.org,2002:(?:python|java)|__import__"#];

/// Lookups and expressions of template engines.
pub(super) const TEMPLATE: &[&str] = &[
    r#"\$\{[^}&]*(?:jndi|lower|upper|env|sys|java|ctx|base64|date|main|k8s|docker|spring|bundle|log4j|script|dns|url|const|:-|::)\s*:|\$\{[^}&]*\$\{|\bjndi\s*:\s*(?:ldap|rmi|dns|iiop|nis|corba|http)"#,
    r#"\{\{[^}&]*(?:\d\s*[*+\-/]\s*['"]?\d|__|\bconstructor\b|\bconfig\s*[.\[|}]|\brequest\s*[.\[|]|\bself\s*[.\[]|\blipsum\b|\bcycler\b|\bjoiner\b|\bnamespace\s*\(|\|\s*(?:attr|safe|system|exec|filter|map|join|reduce|sort)|\bpopen\b|\bimport\b|\bgetattr\b|\bmro\b|\bsubclasses\b|\bsystem\b|_self|\bapp\s*\.|\brange\s*\(|\bphp\b|\$on\b|\beval\b|\brequire\s*\(|\bprocess\s*\.|\bglobal\s*[.\[]|['"]\s*\.\s*__|\bdump\s*\(|\bdebug\b|#with|\$eval|\balert\s*\()"#,
    r#"(?:[$\#*@]\{|<%=?|\{\{?=|\#\{|@\(|\[\[|\{%)\s*(?:\d+\s*[*+\-/]\s*\d+|['"]\w*['"]\s*\*\s*\d)"#,
    r#"[$\#*%@]\{\s*(?:t\s*\(|\(?\s*\#|new\s|class\b|@|''\s*\.|""\s*\.|['"]\s*['"]?\s*\.\s*getclass|(?:application|session|request|page)scope|param\s*[.\[]|request\s*\.|session\s*\.|pagecontext|facescontext|self\s*\.|runtime|java|system\b|_memberaccess|__|process\s*\.|global\s*\.|exec|require|\{)"#,
    r#"<%[=@!-]?[^&]*(?:%>|\bsystem\b|\bexec\b|\bimport\b|`)|<\#\s*(?:assign|include|import|list|if)\b|freemarker\.template|\?new\s*\(\s*\)|\#(?:set|evaluate|include|parse|foreach)\s*\(\s*[$'"]|\{%-?\s*(?:import|include|debug|load|set|from|extends|block|for|if|print|raw|macro|call|with)\b[^&]*(?:%\}|\(|__|')|\{(?:php|system|include\s+file|if\s+(?:phpinfo|system|exec))\b[^&]*\}"#,
    r#"(?:[.\['"|]|\battr\s*\()\s*["']?__(?:class|globals|mro|subclasses|bases?|init|builtins|import|dict|getattribute|getitem|code|self)__|__proto__\s*[\[.\]'"=]|\bconstructor\s*[\[.\]]+\s*prototype"#,
    r#"%\{[^&]*(?:\#|@|ognl|multipart)|ognl\.|@java\.|@org\.|\#(?:_memberaccess|context|application|session|request|attr|parameters|rt|cmd)\b\s*[.\[=]|redirect(?:action)?:\s*[$%]\{"#,
    r#"/esi:|<esi:(?:include|inline|vars|debug)"#,
];

/// Files and schemes that no parameter of an honest request names, and ways up inside a parameter.
pub(super) const INCLUSION: &[&str] = &[
    r#"(?:[=:'"(,|]|^|://)\s*(?:php|phar|expect|gopher|dict|zip|glob|ogg|ssh2|rar|compress\.\w+|zlib|netdoc|jar|ldaps?|tftp|sftp|mailto:.*bcc)\s*:\s*/{1,2}|[='"]\s*(?:view-source:\s*)?file\s*:\s*/|\bphp://(?:filter|input|fd|memory|temp|stdin|output)|\bphar://|\bconvert\.base64|\bdata:(?:;|text/plain)[^&]*base64,"#,
    r#"(?:[=:|"'(<>,;`.&?*%}-]|[/\\]{2}|^)[/\\]*etc[/\\]+(?:passwd|shadow|group|gshadow|issue|hosts|fstab|crontab|sudoers|ssh|nginx|apache2?|httpd|mysql|resolv\.conf|os-release|motd|hostname|my\.cnf|php|network|init\.d|environment|profile|services|redhat-release|debian_version|lsb-release|exports)\b"#,
    r#"(?:[=:|"'(<>,;`.&?*%}-]|[/\\]{2}|^)[/\\]*(?:proc[/\\]+(?:self|\d+|version|cmdline|cpuinfo|mounts|net|sched_debug|environ)\b|var[/\\]+(?:log|mail|spool|run|lib)[/\\]+\w+[/\\.]|usr[/\\]+local[/\\]+(?:apache|etc|nginx)|root[/\\]+\.|home[/\\]+\w+[/\\]+\.|boot[/\\]+grub|dev[/\\]+(?:random|urandom|zero|fd|shm))"#,
    r#"\b[a-z]:[\\/]+(?:windows|winnt|boot\.ini|inetpub|xampp|wamp|autoexec\.bat|apache)|(?:[\\/=]|^)(?:win|boot|system|php)\.ini\b(?:$|[&\s%;])|windows[\\/]+(?:win\.ini|system32|repair|system\.ini|debug)|winnt[\\/]+system32|[\\/]system32[\\/]"#,
    // Two ways up where a value begins, three anywhere, one with a disguise or to something that is not to be read.
    r#"[=:|]['"]?\.{2,}[/\\]+\.{2,}[/\\]|(?:\.\.[/\\]+){3}|(?:^|[/\\=])\.\.\.\.?[/\\]+\.\.|\.\.\.\.(?://|\\\\)|\.\.\\\.\.|\.\.;/|\.\./\./|(?:\.\.[/\\]+)+(?:[\w.-]+[/\\]+)*(?:etc|proc|windows|winnt|\.env|\.git|\.ssh|\.aws|\.htaccess|\.htpasswd|web-inf|wp-config|config\.(?:php|inc|ya?ml|json|ini|xml)|passwd|shadow|id_rsa|boot\.ini|win\.ini|database\.yml|settings\.py|web\.config|global\.asax|secret|\w+\.(?:log|conf|ini|php|asp|jsp|pem|key|bak|sql))\b"#,
    r#"=(?:[^&]*[/\\])?\.(?:env|git|svn|hg|bzr|htaccess|htpasswd|ssh|aws|bash_history|bashrc|npmrc|dockerenv|kube|docker)(?:$|[/\\&.\s])|[=/\\](?:web-inf|meta-inf)[/\\]|[=/\\]wp-config\.php|[=/\\]id_(?:rsa|dsa|ed25519|ecdsa)\b"#,
    r#"://(?:[^/&@]*@)?(?:169\.254\.169\.254|metadata\.google\.internal|100\.100\.100\.200|0xa9fea9fe|2852039166|\[?::ffff:a9fe:a9fe|\[fd00:ec2::254\]|instance-data)|\\\\[\w.-]+\\[\w$.-]+\\|=\\\\\d{1,3}\.\d"#,
    // A program fetched from elsewhere into a parameter that names a page.
    r#"=\s*(?:https?|ftp):/{1,3}[^&\s]+\.(?:txt|php|asp|jsp|gif|jpe?g|png)\?{1,2}(?:$|&|\s)|=\s*(?:https?|ftp):/{1,3}[^&\s]*(?:/(?:shell|cmd|c99|r57|evil|backdoor|webshell)[\w.-]*)"#,
];

/// A line end and a field or status line behind it. A line end alone passes: texts of several lines are sent by forms.
pub(super) const SPLITTING: &[&str] = &[
    r#"\n\s*(?:set-cookie2?|content-(?:type|length|encoding|disposition|security-policy)|transfer-encoding|access-control-[a-z-]+|x-[a-z][a-z-]+|cache-control|last-modified|user-agent|referer|mime-version)\s*:|\n\s*(?:location|refresh|link)\s*:\s*(?:https?:|/|<|\d+\s*;)|\n\s*b?cc\s*:\s*\S+@"#,
    r#"\n\s*http/\d|\n<\s*(?:html|script|!doctype|svg|body)\b|\n\s*(?:get|post|head|put|delete|options)\s+/\S*\s+http|\n\s*(?:flushall|config\s+set|slaveof|eval\s|helo\s|ehlo\s|mail\s+from|rcpt\s+to|stat\s+items|gets?\s+\w+\n|quit\s*\n)"#,
];
