//! HTTP/1.1 in as few lines as seeding a server and reading its counters take.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// One request on a connection of its own; status and body. `url` is `http://host:port/path`.
pub(crate) fn request(method: &str, url: &str, body: &[u8]) -> (u16, String) {
    send(method, url, &[], body)
}

/// The same with headers of the caller's.
pub(crate) fn send(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> (u16, String) {
    let (host, path) = url
        .strip_prefix("http://")
        .unwrap()
        .split_once('/')
        .unwrap();
    let mut stream = TcpStream::connect(host).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let mut head = format!(
        "{method} /{path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {}\r\nConnection: close\r\n",
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let answer = read(&mut stream);
    let answer = String::from_utf8_lossy(&answer);
    // Some servers say "100 Continue" before the answer.
    let answer = match answer.split_once("\r\n\r\n") {
        Some((head, rest)) if head.contains(" 100 ") => rest,
        _ => &answer,
    };
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status.unwrap_or(0), body.to_owned())
}

/// An answer up to its announced length (some servers keep a connection open that they were asked to
/// close), or to the end of the connection.
fn read(stream: &mut TcpStream) -> Vec<u8> {
    let (mut answer, mut part) = (Vec::new(), [0; 65_536]);
    loop {
        let text = String::from_utf8_lossy(&answer);
        let head = text.split_once("\r\n\r\n").map(|(head, _)| head);
        let length = head.and_then(|head| {
            let mut lines = head.lines().filter_map(|line| line.split_once(':'));
            let found = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
            found?.1.trim().parse::<usize>().ok()
        });
        if let Some((head, length)) = head.zip(length)
            && answer.len() >= head.len() + 4 + length
        {
            return answer;
        }
        match stream.read(&mut part).unwrap() {
            0 => return answer,
            read => answer.extend_from_slice(&part[..read]),
        }
    }
}

/// Percent-encodes what is not allowed in a path; slashes stay.
pub(crate) fn encode(path: &str) -> String {
    path.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b'~' => {
                (byte as char).to_string()
            }
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
