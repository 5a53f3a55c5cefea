//! The requests of the load: what a browser sends to a PHP shop.

use crate::peers::SECOND_ROUTE;

/// Eight requests: seven for the default route and one for the second.
pub fn mix() -> Vec<Vec<u8>> {
    let pages = [
        "/",
        "/index.php",
        "/shop/list.php?page=2",
        "/shop/item.php?id=1234",
        "/cart.php",
        "/search.php?q=keel",
        "/account.php",
    ];
    let image = format!("{SECOND_ROUTE}logo.png");
    pages.into_iter().chain([image.as_str()]).map(get).collect()
}

/// A GET with the usual headers.
pub fn get(target: &str) -> Vec<u8> {
    format!(
        "GET {target} HTTP/1.1\r\n\
         Host: www.example.com\r\n\
         User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
         Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n\
         Accept-Language: en-US,en;q=0.5\r\n\
         Accept-Encoding: gzip, deflate, br\r\n\
         Referer: http://www.example.com/index.php\r\n\
         Cookie: PHPSESSID=4kq2v9d0s1b7n3m8c6x5z2l1ha\r\n\
         \r\n"
    )
    .into_bytes()
}
