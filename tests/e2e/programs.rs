//! Programs of WASI: what they find of a request, and of their settings.

use midge_tests::host::Setup;
use midge_tests::http::Request;

const PROGRAM: &str = include_str!("../guests/program.wat");

fn strings(body: &[u8]) -> Vec<String> {
    let parts = body.split(|&byte| byte == 0);
    parts.map(|part| String::from_utf8_lossy(part).into_owned()).collect()
}

#[test]
fn a_program_finds_request_and_settings_in_its_environment() {
    let host = Setup::new().file("program.wat", PROGRAM).serve(
        "[[function]]\nname = \"program\"\nmodule = \"program.wat\"\nroute = \"/*\"\n\
         arguments = [\"-v\", \"two words\"]\nenvironment = [\"REGION=north\", \"EMPTY=\"]\n",
    );
    let mut client = host.client();
    let request = Request::post("/a%20b?c=d", b"body")
        .with("x-one", "1")
        .with("x-one", "2")
        .with("cookie", "a=b")
        .with("proxy", "evil")
        .with("authorization", "secret")
        .with("content-type", "text/plain");
    for _ in 0..2 {
        let response = client.ask(&request);
        assert_eq!(response.status, 200);
        let found = strings(&response.body);
        assert_eq!(found[..3], ["program", "-v", "two words"]);
        let expected = [
            "GATEWAY_INTERFACE=CGI/1.1",
            "SERVER_PROTOCOL=HTTP/1.1",
            "REQUEST_METHOD=POST",
            "REQUEST_URI=/a%20b?c=d",
            "PATH_INFO=/a b",
            "QUERY_STRING=c=d",
            "SERVER_NAME=localhost",
            "SERVER_PORT=80",
            "REMOTE_ADDR=127.0.0.1",
            "CONTENT_LENGTH=4",
            "CONTENT_TYPE=text/plain",
            "HTTP_X_ONE=1, 2",
            "HTTP_COOKIE=a=b",
            "REGION=north",
            "EMPTY=",
        ];
        for variable in expected {
            assert!(found.iter().any(|found| found == variable), "{variable}: {found:?}");
        }
        let is_kept_back =
            |name: &str| name.starts_with("HTTP_PROXY") || name.starts_with("HTTP_AUTH");
        assert!(!found.iter().any(|found| is_kept_back(found)), "{found:?}");
    }
}

/// What settings add is told from headers by a name that no client can send.
#[test]
fn a_client_cannot_set_variables() {
    let host = Setup::new().file("program.wat", PROGRAM).function("program.wat");
    let mut client = host.client();
    client.send(b"GET / HTTP/1.1\r\nhost: a\r\n:environment: A=b\r\n\r\n");
    assert_eq!(client.receive().status, 400);
}
