//! `#[midge_guest::function]`: exports the function that it stands before.
//!
//! ```text
//!   #[midge_guest::function(heap = 4096)]        fn handle(..) { .. }
//!   fn handle(..) { .. }                    -->  midge_guest::export!(handle, heap = 4096);
//! ```
//!
//! Invariant: the function itself is handed on as it came, token by token, so that what the compiler says of it
//! points at the user's lines.
//! Not here: a parser of Rust. Two facts are read off: the function's name and the attribute's arguments.
#![forbid(unsafe_code)]

use proc_macro::{Delimiter, Group, Ident, Punct, Spacing, Span, TokenStream, TokenTree};

/// What the attribute may say, in the order that `export!` wants it in.
const ARGUMENTS: [&str; 3] = ["area", "heap", "initialize"];

/// Exports a function to the host: `#[midge_guest::function(area = 65536, heap = 65536, initialize = warm_up)]`.
/// What the arguments mean stands at `midge_guest::export!`; all of them may be left out.
#[proc_macro_attribute]
pub fn function(arguments: TokenStream, item: TokenStream) -> TokenStream {
    let exported = match (name_of(&item), arguments_of(arguments)) {
        (Some(name), Ok(arguments)) => export(name, arguments),
        (None, _) => refuse("this attribute stands before a `fn`", Span::call_site()),
        (_, Err((message, span))) => refuse(&message, span),
    };
    item.into_iter().chain(exported).collect()
}

/// Returns the name of a function: what follows `fn`. Bodies and parameters are groups, which are not looked into.
fn name_of(item: &TokenStream) -> Option<Ident> {
    let mut tokens = item.clone().into_iter();
    tokens.find(|token| matches!(token, TokenTree::Ident(word) if word.to_string() == "fn"))?;
    match tokens.next()? {
        TokenTree::Ident(name) => Some(name),
        _ => None,
    }
}

/// Takes `a = b, c = d` apart, and puts it into the order of [`ARGUMENTS`].
fn arguments_of(tokens: TokenStream) -> Result<Vec<TokenTree>, (String, Span)> {
    let mut found: [Option<Vec<TokenTree>>; ARGUMENTS.len()] = [const { None }; ARGUMENTS.len()];
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let (text, span) = (token.to_string(), token.span());
        let Some(place) = ARGUMENTS.iter().position(|argument| *argument == text) else {
            let known = ARGUMENTS.map(|argument| format!("`{argument}`")).join(", ");
            return Err((format!("`{text}` is no argument of this attribute: {known}"), span));
        };
        let is_comma =
            |token: &TokenTree| matches!(token, TokenTree::Punct(mark) if mark.as_char() == ',');
        let mut argument = vec![token];
        while let Some(token) = tokens.next_if(|token| !is_comma(token)) {
            argument.push(token);
        }
        let has_value = argument.len() > 2 && argument[1].to_string() == "=";
        if !has_value {
            return Err((format!("`{text}` wants a value: `{text} = ..`"), span));
        }
        if found[place].replace(argument).is_some() {
            return Err((format!("`{text}` is given twice"), span));
        }
        // The comma, if it is not the end.
        tokens.next();
    }
    let comma = || TokenTree::Punct(Punct::new(',', Spacing::Alone));
    Ok(found.into_iter().flatten().flat_map(|part| [comma()].into_iter().chain(part)).collect())
}

/// Writes `::midge_guest::export!(name, ..);`.
fn export(name: Ident, arguments: Vec<TokenTree>) -> TokenStream {
    let inner = [TokenTree::Ident(name)].into_iter().chain(arguments).collect();
    call("::midge_guest::export!", inner, Span::call_site())
}

/// Writes `::core::compile_error!("..");`.
fn refuse(message: &str, span: Span) -> TokenStream {
    let mut text = proc_macro::Literal::string(message);
    text.set_span(span);
    call("::core::compile_error!", TokenTree::Literal(text).into(), span)
}

/// Writes a call of a macro, whose errors then point at `span`.
fn call(path: &str, inner: TokenStream, span: Span) -> TokenStream {
    let path: TokenStream = path.parse().expect("a constant of this file");
    let end = [
        TokenTree::Group(Group::new(Delimiter::Parenthesis, inner)),
        TokenTree::Punct(Punct::new(';', Spacing::Alone)),
    ];
    path.into_iter()
        .chain(end)
        .map(|mut token| {
            token.set_span(token.span().located_at(span));
            token
        })
        .collect()
}
