//! The order of callbacks: what a filter sees of each kind of exchange.

use super::super::case::Case;
use super::super::client::Request;
use super::super::program::{Phase, Program};

pub(crate) fn cases() -> Vec<Case> {
    let plain =
        |name: &str, request: Request| Case::new(format!("order/{name}"), request, Program::new());
    let head = Request {
        method: "HEAD",
        ..Request::get("/plain")
    };
    let gone = |path: &str, phase: Phase| Request {
        abort_after: Some(phase),
        ..Request::get(path)
    };
    vec![
        plain("get", Request::get("/plain")),
        plain("get without a body", Request::get("/empty")),
        plain("get no-content", Request::get("/no-content")),
        plain("head", head),
        plain("post", Request::post("/echo", "some body")),
        plain("post empty", Request::post("/echo", "")),
        plain("post big", Request::post("/echo", vec![b'x'; 100_000])),
        plain("request trailers", Request::with_trailers("/echo")),
        plain("response trailers", Request::get("/trailers")),
        plain("trailers both ways", Request::with_trailers("/trailers")),
        plain("big response", Request::get("/big?300000")),
        plain("slow response", Request::get("/slow?100")),
        plain("informational responses first", Request::get("/hints")),
        plain("server error", Request::get("/unavailable")),
        plain(
            "client gone while waiting",
            gone("/hang", Phase::RequestHeaders),
        ),
        plain("server refuses", Request::get("/dead/plain")),
        plain("first server refuses", Request::get("/mixed/plain")),
        plain("server closes", Request::get("/reset")),
        plain("server closes on a post", Request::post("/reset", "body")),
        plain("server closes in its body", Request::get("/half")),
        plain(
            "no route",
            Request {
                method: "PUT",
                ..Request::get("/plain")
            },
        ),
    ]
}
