//! A program of WASI that answers requests in the way of CGI: what it writes to stdout is the response.
const wasi = @import("std").os.wasi;

fn write(text: []const u8) void {
    const piece = [_]wasi.ciovec_t{.{ .base = text.ptr, .len = text.len }};
    var written: usize = 0;
    _ = wasi.fd_write(1, &piece, 1, &written);
}

/// Finds a variable of the request's: each is `NAME=value`.
fn variable(list: []const [*:0]u8, name: []const u8) []const u8 {
    for (list) |entry| {
        var size: usize = 0;
        while (entry[size] != 0) size += 1;
        const text = entry[0..size];
        if (size > name.len and text[name.len] == '=') {
            var same = true;
            for (name, text[0..name.len]) |one, other| same = same and one == other;
            if (same) return text[name.len + 1 ..];
        }
    }
    return "";
}

var entries: [256][*:0]u8 = undefined;
var strings: [65536]u8 = undefined;

pub fn main() void {
    var count: usize = 0;
    var size: usize = 0;
    _ = wasi.environ_sizes_get(&count, &size);
    if (count > entries.len or size > strings.len) return;
    _ = wasi.environ_get(&entries, &strings);
    write("Content-Type: text/plain; charset=utf-8\r\n\r\nhello from ");
    write(variable(entries[0..count], "REQUEST_URI"));
    write("\n");
}
