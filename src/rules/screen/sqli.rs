//! SQL injection by structure: what breaks out of a literal, and what only makes sense after it has.
//!
//! Shape: patterns over the normal form. `§` is a gap as SQL sees it (white space, comments) or none, `¶` a gap. Words alone never hit: a text about SQL passes.
//! Source: the grammar of the statements themselves; the ways out of a literal are a quote, a closing parenthesis, the end of a number.

pub(super) const CERTAIN: &[&str] = &[
    // UNION SELECT behind a literal, or with something that no prose goes on with.
    r#"(?:['")\d]|null)§union[¶(]*(?:(?:all|distinct|distinctrow)[¶(]*)?[¶(]select(?:[(*@\-]|¶[^\s])"#,
    // The first quote of a value, and then logic: it closes a string that someone else opened.
    r#"(?:[=&]|^)[^'"&=?\[{]*['"][§)]*(?:\b(?:or|and|xor)\b|\|\||&&|¤¤)[§(!~\-]*(?:not¶|binary¶)?[§(]*[\w.@`$"\[\]]+§(?:\([^&]*\))?[§'")]*(?:(?:<=>|<>|!=|>=|<=|=|<|>)[§(]*['"]?[\w.@%]*(?:\([^&)]*\))?[§)]*(?:--|\#|;|/\*|$|&)|(?:like|rlike|regexp)[§(]*['"]|in§\(|between¶['"\d]|is¶(?:not¶)?null)"#,
    r#"['"][§)]*(?:or|and|xor|\|\||&&|¤¤)[§(!~\-]*(?:true|false|null|\d+|'[^'&]*'?|"[^"&]*"?)[§)]*(?:--|\#|;|/\*|limit¶\d)"#,
    r#"[=&?][^'"&=]*['"][§)]*(?:or|and|xor|\|\||&&|¤¤)[§(]*(?:exists§\(|not¶exists|ascii§\(|substr|length§\(|sleep§\(|benchmark|pg_sleep|if§\(|case¶|\(§select|ord§\(|mid§\(|extractvalue|updatexml|row§\()"#,
    // A literal joined to another by an operator that is no punctuation.
    r#"[=&?][^'"&=]*'[§)]*(?:(?:\|\||<=>|<>|!=|\^|\bdiv\b|\bmod\b|\brlike\b|\bregexp\b|\blike\b)[§(]*(?:'|\d|\(|0x|chr|char)|=[§(]*')"#,
    // A comment where a statement is to end.
    r#"[=&?/][^'"&=/]*['"][§)]*;?§(?:--\s*(?:[\-;]|\w{0,4}\s*(?:$|&))|\#(?:\s|$|&)|/\*(?:\*/)?(?:$|&))"#,
    r#"[=&?]-?\d+(?:[§)]*;?§--\s|[§);]+--)\s*-?\s*\w?(?:$|&)"#,
    r#"[=&?][^&=]*['")\d]§;§(?:--|\#)(?:\s|$|&)"#,
    // ORDER BY 10, GROUP BY, HAVING, LIMIT, INTO behind a literal.
    r#"(?:['")]|[=/]-?\d+)[§)]*\b?(?:order|group)¶by¶(?:\d+(?:§,§\d+)*§(?:--|\#|;|/\*|$|&)|[\w`.,\s]+(?:--|\#|having\b)|\(|if§\()"#,
    r#"(?:['")]|[=/]-?\d+)[§)]+(?:having¶[\w'"(]+§[=<>]|procedure¶analyse|limit¶\d+§,?§\d*§(?:--|into|procedure|\#)|into¶(?:out|dump)file|for¶(?:xml|json)¶)"#,
    r#"(?:['";)\d]|^|=)§waitfor¶(?:delay|time)¶['"(@]|\bexec(?:ute)?[¶(]+(?:master\.+)?(?:\w*\.)*(?:xp_\w+|sp_(?:oa|execute|configure|password|addlogin|makewebtask)\w*)"#,
    r#"(?:[=&]|^)[^'"&=?\[{]*['"][§)]*(?:\b(?:and|or|xor)\b|\|\||¤¤|&&)[^&]*(?:[=<>]|::|->|\#>)[^&]*['"](?:[^'"&]*)(?:$|&)"#,
    r#"=[^'&\s=]*'§(?:[*%^|]+§['\d(]|[+\-]?§\(§(?:select|case|if)\b|-§'(?:$|&)|%\d+'\d)|=[^'&\s=]*'§(?:\|\||¤¤)§[\w'(]"#,
    r#"['"]§or§\d+§or§['"]|\[§\d+§=§\d+§(?:or\b|and\b|\])|=\d+¶between§\(|\b(?:or|and)§'[^'&]*'§(?:::|@>|<@|->|\?)|=if\(\d+=\d+,|=case¶when¶\d+=\d+|=§sleep\(\d+\)§(?:--|\#)|['"\d)]§;?§get_lock\(|\band¶get_lock\("#,
    // Behind a number: logic or arithmetic with what no text goes on with.
    r#"=\(?-?\d+(?:\.e)?§(?:(?:and|or|xor)(?:¶(?:not¶)?-?\d+§(?:order\b|=|--|\#)|¶not¶\d|¶[01]§(?:$|&)|\(|-\d|@|¶-?\d+=)|(?:[*/-]|¤¤|&&)§(?:sleep|benchmark|pg_sleep|\d+=)|having¶(?:\d|\w+§\()|=§(?:any|all|some)§\()"#,
    // A tautology behind a number that begins the value, and nothing after it.
    r#"=-?\d+[§)]*¶(?:or|and)¶[§(]*(?:\d+§(?:=|<|>|!=|like)§\d+|true|false)[§)]*(?:--|\#|;|$|&)"#,
    // A wait or a query joined to the end of a literal.
    r#"[=&?][^'"&=]*(?:['"]|=-?\d+)[§)]*(?:\b(?:and|or|xor)\b|\|\||[-+*/^,;])[§(]*(?:select[§(]+)?(?:pg_sleep|sleep|benchmark|extractvalue|updatexml|load_file|randomblob|dbms_pipe\.receive_message|dbms_lock\.sleep)§\([^&]*\)"#,
    r#"=-?\d+[§)]*(?:\b(?:and|or|xor)\b|\|\||[-+*/^;])[§(]*(?:select[§(]+)?(?:pg_sleep|sleep|benchmark|extractvalue|updatexml|load_file|randomblob|dbms_pipe\.receive_message|dbms_lock\.sleep)§\([^&)]+\)"#,
];

/// What an honest text may say too.
pub(super) const LIKELY: &[&str] = &[
    r#"=-?\d+[§)]*(?:\b(?:and|or|xor)\b|\|\||[-+*/^,;])[§(]*(?:select[§(]+)?(?:pg_sleep|sleep|benchmark|extractvalue|updatexml|load_file|randomblob|dbms_pipe\.receive_message|dbms_lock\.sleep)§\([^&]*\)"#,
    r#"(?:[=&]|^)[^'"&=?\[{]*['"][§)]*(?:\b(?:or|and|xor)\b|\|\||&&|¤¤)[§(!~\-]*(?:not¶|binary¶)?[§(]*[\w.@`$"\[\]]+§(?:\([^&]*\))?[§'")]*(?:<=>|<>|!=|>=|<=|=|<|>|(?:like|rlike|regexp)[§(]*['"]|in§\(|between¶['"\d]|is¶(?:not¶)?null)"#,
    r#"=§sleep\(\d+\)§(?:$|&)"#,
    r#"(?:[=&]|^)[^'"&=?\[{]*['"][§)]*(?:\b(?:and|or|xor)\b|\|\||¤¤|&&)[^&]*(?:[=<>?]|\b(?:like|in|between|is|exists|not)\b|::|->|\#>)[^&]*['"](?:[^'"&]*)(?:$|&)"#,
    r#"(?:['")]|[=/]-?\d+)[§)]*\b?(?:order|group)¶by¶(?:\d|[\w`.,\s]+(?:--|\#|having\b)|\(|if§\()"#,
    r#"(?:['")\d]|null)§union[¶(]*(?:(?:all|distinct|distinctrow)[¶(]*)?[¶(]select\b"#,
    r#"[=&?][^"&=]*"[§)]*(?:\bor\b|\bxor\b|\bor|\|\||and|&&|¤¤)[§(]*"[^"&]*(?:&|$)"#,
    r#"[=&?][^'&=]*'[§)]*(?:\bor\b|\bxor\b|\bor|\|\||and|&&|¤¤)[§(]*'[^'&]*(?:&|$)"#,
    r#"\bunion[¶(]+(?:(?:all|distinct)[¶(]+)?select[¶(]+(?:null\b|-?\d|'[^']*'|"[^"]*"|@@?\w|\*§from\b|0x[0-9a-f]|(?:char|chr|concat|concat_ws|group_concat|version|user|database|load_file|current_user|hex|unhex|cast|convert)§\(|[\w.`]+(?:§,§[\w.`'"]+)+§(?:from\b|--|$|&))"#,
    // OR 1=1 and its kin: a literal compared with a literal.
    r#"(?:\b(?:or|and|xor|having)\b|\|\||&&|['")\d]§(?:or|and|xor))[§(!~\-]*(?:not\b|binary\b)?[§(]*(?:\d+|'[^'&]*'|"[^"&]*"|true|false)[§)]*(?:<=>|<>|!=|>=|<=|=|<|>|\b(?:like|rlike|regexp|sounds¶like|is)\b)[§(]*(?:binary\b)?[§(]*(?:['"]|\d|true|false|null)"#,
    r#"(?:\b(?:or|and)\b|\|\||&&|¤¤)[§(]+\d+§(?:in§\(|between¶\d)"#,
    r#"\binto¶(?:out|dump)file§['"]|\bprocedure¶analyse§\("#,
    // A second statement.
    r#";§(?:drop¶(?:table|database|view|index|user|schema|procedure|function|trigger|column|role|login)|insert¶into|update¶[\w.`\["]+¶set|delete¶from¶[\w.`"\[\]]+§(?:where\b|--|;|\#|'|$|&)|truncate¶(?:table¶)?\w|(?:create|alter)¶(?:or¶replace¶)?(?:table|user|login|database|function|procedure|role|trigger|view|extension)|declare¶@|exec(?:ute)?(?:¶|§\()(?:master|xp_|sp_|immediate|'|@|\()|shutdown§(?:--|;|with|$|&)|copy¶[\w.("]+§(?:from|to)¶(?:program|')|grant¶\w+¶(?:on|to)|select¶(?:\*|@@|'|"|\d|pg_|sleep|load_|null|version|current_|user\b|[\w.,`\s]+¶from¶)|waitfor¶delay|call¶\w+§\(|begin¶|rename¶table|attach¶database|use¶master|merge¶into|replace¶into)"#,
    // Functions that honest requests do not call, behind anything that is not prose.
    r#"(?:['\d);,(|&¤*/<>-]|\b(?:or|and|select|then|if|when|in|else|rlike|regexp)\b)[§(]*(?:pg_sleep§\(|sleep§\([§(]*(?:\d+(?:\.\d+)?[§)]*(?:--|\#|[^\s&)]|and|or)|'|"|0x|select|if\b)|benchmark§\(§\d+\w*§,|extractvalue§\(|updatexml§\(|load_file§\(|xp_cmdshell§[('"]|sp_oacreate|randomblob§\(\d|dbms_\w+\.\w+|utl_(?:http|inaddr|file|smtp)\.|ctxsys\.|sys_eval§\(|sys_exec§\(|lo_import§\(|pg_read_file§\(|xmltype§\(|gtid_subset§\(|name_const§\(|json_keys§\(§\(?select|st_latfromgeohash§\(|exp§\(~)"#,
    r#"(?:['"\d)(,|&]|\b(?:or|and|select|rlike)\b)[§(]+sleep§\(\d+(?:\.\d+)?\)"#,
    // A query within an expression.
    r#"(?:[=<>,|&¤!^~*/%'"+-]|\d|\b(?:or|and|xor|not)\b(?:§exists)?|\w+\(\w*)[§(]*\([§(]*select\b(?:§\(|¶[^&]*(?:\bfrom\b|@@|\bcase\b|sleep|chr\b|char\b|version|current_user|user§\(|database§\(|\)§(?:=|<|>|,|\)|--|\#|$|&)))"#,
    r#"\b(?:ascii|ord|substr|substring|mid|char_length|length|hex|unhex|cast|convert|concat|concat_ws|group_concat|count|coalesce|ifnull|nullif|iif|if|bin|lower|upper|left|right|instr|locate|char|chr|json_extract|to_char|rtrim|ltrim|trim|xmlelement)§\([§(]*(?:select\b|@@|(?:user|version|database|schema|current_user|system_user|session_user)§\()"#,
    r#"(?:['"\d)]|\b(?:or|and|select|if)\b)[§(]*(?:ascii|ord|substr|substring|mid|length|char_length)§\([^)&]*\)[§)]*(?:=|<|>|!=|like\b|between\b|in§\()"#,
    r#"\b(?:from|join|into|update)[¶(`"\[]+(?:information_schema|mysql|pg_catalog|sys|performance_schema|master|msdb)[`"\]]?\.+[`"\[]?\w|\b(?:from|join)[¶(`"\[]+(?:sqlite_master|sqlite_schema|pg_shadow|pg_user|sysobjects|syscolumns|all_tables|user_tables|all_tab_columns|v\$version|dual)\b[`"\]]?§(?:where|--|\)|\#|;|limit|$|&)"#,
    r#"(?:[;('"\d)]|\bunion\b|\ball\b)§select[¶(]+(?:@@\w|(?:version|user|database|current_user|system_user|pg_sleep|load_file|sleep|group_concat|concat_ws|chr|char|unhex|utl_inaddr|dbms_\w+)§[.(].*\))"#,
    r#"(?:['"\d)]|\b(?:or|and|select)\b)[§(]*(?:convert|cast)[§(]+(?:(?:int|char|varchar|numeric|signed)§,|[^&]*\bas¶(?:int|integer|char|varchar|numeric|signed|decimal)§\))"#,
    r#"(?:['"\d)(,;]|\b(?:or|and|select|by)\b)[§(]*case¶when\b.*\bthen\b.*\b(?:else|end)\b"#,
    r#"(?:['"\d)]|\b(?:or|and)\b)[§(]*(?:if|iif)§\(§[\w@(]+[^&]*[=<>][^&]*,[^&]*,[^&]*\)"#,
    // Long runs of hexadecimal or CHAR() as operands.
    r#"\b(?:char|chr|nchar)§\(§\d{2,3}§\)(?:§(?:\|\||,|&)?§(?:char|chr|nchar)§\(|§,)|\b(?:concat|char)§\((?:§(?:0x[0-9a-f]{2,}|\d{2,3})§,){2,}"#,
    // A quote that ends a literal, logic or another clause, and the end of the statement or the quote of the next literal.
    r#"(?:[=&]|^)[^'"&=?\[{]*['"][^&]*\b(?:and|or|xor|union|except|intersect|minus|having|order|group|limit|offset|fetch|for|into|procedure|like|rlike|regexp|between|in|is|not|div|mod|collate|returning|where|set|values|select|from|table|waitfor|exec|drop|insert|delete|update)\b[^&]*(?:--[\-+; ]*\w{0,3}|\#|/\*(?:\*/)?|;\x00?)§(?:$|&)"#,
    r#"(?:[=&]|^)[^'"&=?\[{]*['"][§)]*(?:\b(?:except|intersect|minus)¶(?:all¶)?[§(]*select\b|\bunion¶?[§(]*(?:all¶)?[§(]*(?:values|table|with|select)\b)|\bunion[¶(]+(?:all[¶(]+)?(?:values|table)¶?[\w(]"#,
    r#"['"\d)]§;§(?:call¶[\w.]+§\(|set¶@|copy¶\(|do¶\$|prepare¶\w+¶from|declare¶|execute¶|handler¶\w+¶open|lock¶tables?|load¶data|show¶(?:tables|databases)|replace¶|create¶|alter¶|begin¶|exec\b|kill¶\d|vacuum|listen¶|notify¶)"#,
    r#"=[^'&=\s]*'§(?:=|<>|!=|<|>|<=>)§(?:'|\d+§(?:--|\#|$|&))|=[^'&=\s]*\\'§(?:or|and|union)\b|['"]§like§['"]|\b(?:or|and)¶(?:sleep|benchmark|pg_sleep)§\(|=-?\d+¶(?:rlike|regexp|procedure|into|div|mod)¶?[\w(@]|=\(§select¶|\blimit¶\d+(?:§,§\d+)?¶into\b"#,
    r#"=\(?-?\d+(?:\.e)?§;§(?:set|select|drop|insert|update|delete|exec|declare|create|alter)¶"#,
    r#"\b(?:and|or)¶(?:not¶)?(?:-?\d+=)?(?:convert|ctxsys\.|xmltype|glob|has_table_privilege|inet_server_addr|is_member|is_srvrolemember|object_id|db_name|host_name|typeof|unicode|zeroblob|hex|quote|user|current_user|current_database|version|database|schema|benchmark|sleep|extractvalue|updatexml|row_count|found_rows|pg_\w+|utl_\w+|dbms_\w+|sys\.\w+)§\.?§\w*§\("#,
    r#"=§\(?(?:benchmark§\(\d+,|pg_sleep§\(\d|sleep§\(\d+\)\)|dbms_\w+\.\w+§\(|extractvalue§\(\d|updatexml§\((?:\d|0x)|waitfor¶delay¶?['"]|utl_http\.)|1\.e§\(|['"]§(?:[&+\-^]§\d+§(?:\#|--)|>§-?\d+§(?:\#|--)|\^§(?:sleep|\(|\d)|§(?:\+|-)?§char§\(\d)|['"]§;§(?:commit|rollback|flush|reconfigure|reset|analyze|grant|revoke|discard|set|use|reindex|cluster|checkpoint|optimize)\b"#,
    // Document stores and directories.
    r#"['"\[&]\$where['"\]]*§(?::|=§(?:'|"|\d+§(?:$|&)|this\.|function|object\.|sleep|return))|\$where['"\]]*§[:=]§(?:function|this\.|['"0-9]?§(?:\|\||;)|sleep|return|1§=)|[?&]\$(?:ne|gt|gte|lt|lte|regex|nin|in|exists|func|or|and|nor|not|expr|function|match|lookup|out|type|accumulator|project|unionwith|jsonschema)=|\[\$(?:ne|nin|regex|where|expr|function|accumulator|type|elemmatch)\](?:\[[^\]]*\])*=|\[\$(?:gt|gte|lt|lte|in)\](?:\[[^\]]*\])*=(?:$|&)|\[\$exists\]=|\[\$lt\]=9{3,}|['"]\$(?:ne|gt|regex|where|nin|exists)['"]§:§(?:null|''|""|-?\d|true|'|"[.^*])"#,
    r#"['"]§[;+})]+§(?:while|for|do|var|function|return|db\.|it=|sleep)\b§[(={.]|['"]§\(?§function§\(|[;'"]§(?:while|for)§\((?:true|1|;)|\bmapreduce§\(|\$or§:§\[§\{|\$where§:§['"]|['"});]§;?§db\.\w+\.(?:find|insert|drop|remove|update|aggregate|mapreduce)§\(|=§;?db\.\w+\.(?:drop|mapreduce|remove)§\(|['"]§(?:\|\||&&|¤¤|;|\))§(?:this\.|return\b|db\.|true§(?:;|//)|sleep§\()|';§return\b"#,
    r#"[?&][^=&]*=[^(&]*\*§\)§\(§[|&!]?§\(?§[\w\-]+§=|\)§\(§[|&]§\(|\)\(§\w+§=§\*§\)|\*§\(§[|&!]?§\(|\*\)\)?\([&|]?\(?\w+(?::[\d.]+:)?=|'§or§(?:true|current-date|position|last)\(\)|\bdoc\('[^']*'\)//|\bobject\.keys\(this\)|=\d*;§return¶(?:true|1)|=function§\(\)§\{§return|\bemit\(this\.|'§;§it=new¶date|\)§\(§[!&|]+§[()]|[?&][^=&]*=[^(&=]*\)§\(§[!&|¤]*§\(?§[\w-]+§[~<>]?=|\]§\|§/|\bcount§\(§/|\bname§\(§(?:/|\.|parent|\*)|\b(?:position|text)\(\)§=|\bdoc§\(§(?:concat|['"]https?)|\bstring§\(§/|\bor§//|\*\)\)\x00|=[^'&\[=]*'\]|\b(?:child|parent|ancestor|descendant|following|preceding)::(?:node|\*|text|\w+\[)|=\*\)\)?(?:$|&)|\bstring-length§\(§(?:name|//)|\bor§name\(\)§=|'§\|§//"#,
];
