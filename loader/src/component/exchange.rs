//! One call of a component's handler, of either version of WASI, with its response on the way to the desk.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::Poll;

use bytes::Bytes;
use http_body::Body;
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p3::bindings::ServicePre;
use wasmtime_wasi_http::{Error, WasiHttpView, p3};

use super::context::ComponentContext;
use super::desk::Desk;
use super::request::RequestBody;

/// Tells the guest what became of the request's body.
type Received = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// A component with its imports bound.
pub(super) enum Handler {
    /// `wasi:http/incoming-handler` of 0.2.
    Incoming(ProxyPre<ComponentContext>),
    /// `wasi:http/handler` of 0.3.
    Service(ServicePre<ComponentContext>),
}

/// Makes an instance and calls it. What it answers stands at the desk.
///
/// # Errors
/// Its trap, or what the engine could not do.
pub(super) async fn run(
    store: &mut Store<ComponentContext>,
    handler: &Handler,
    request: http::Request<RequestBody>,
    desk: &Desk,
) -> wasmtime::Result<()> {
    match handler {
        Handler::Incoming(pre) => {
            let proxy = pre.instantiate_async(&mut *store).await?;
            let (sender, receiver) = oneshot::channel();
            let mut view = store.data_mut().http();
            let request = view.new_incoming_request(Scheme::Http, request)?;
            let out = view.new_response_outparam(sender)?;
            let mut answer = pin!(async {
                match receiver.await {
                    Ok(Ok(response)) => forward(desk, response).await,
                    Ok(Err(code)) => desk.fail_output(format!("the handler failed: {code:?}")),
                    Err(_) => {}
                }
            });
            let mut is_answered = false;
            {
                let handler = proxy.wasi_http_incoming_handler();
                let mut call = pin!(handler.call_handle(&mut *store, request, out));
                poll_fn(|context| {
                    is_answered = is_answered || answer.as_mut().poll(context).is_ready();
                    call.as_mut().poll(context)
                })
                .await?;
            }
            poll_fn(|context| {
                if is_answered || answer.as_mut().poll(context).is_ready() {
                    return Poll::Ready(());
                }
                let (is_set, has_room) =
                    desk.with_output(|output| (output.is_set, output.has_room()));
                if is_set && has_room {
                    // It waits for a body that nobody will write on. The engine's crates would take it for whole.
                    let why = "the component did not finish the body of its response";
                    desk.fail_output(why.to_owned());
                }
                // What was not set or finished never will be.
                if has_room { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            Ok(())
        }
        Handler::Service(pre) => {
            let service = pre.instantiate_async(&mut *store).await?;
            store
                .run_concurrent(async |accessor| {
                    let (request, received) = accessor.with(|mut access| {
                        let hooks = access.data_mut().http().hooks;
                        let (request, received) = p3::Request::from_http(hooks, request);
                        let received: Received = Box::pin(received);
                        (request, received)
                    });
                    let response = match service.handle(accessor, request).await? {
                        Ok(response) => response,
                        Err(code) => {
                            desk.fail_output(format!("the handler failed: {code:?}"));
                            return Ok(());
                        }
                    };
                    let response = accessor.with(|access| response.into_http(access, received))?;
                    forward(desk, response).await;
                    Ok(())
                })
                .await?
        }
    }
}

async fn forward<B>(desk: &Desk, response: http::Response<B>)
where
    B: Body<Data = Bytes, Error = Error> + Unpin,
{
    let (parts, mut body) = response.into_parts();
    desk.begin_output(parts.status.as_u16(), parts.headers);
    let mut trailers = http::HeaderMap::new();
    loop {
        desk.room().await;
        match body.frame().await {
            None => return desk.end_output(trailers),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(piece) => desk.push_output(piece),
                Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
            },
            Some(Err(error)) => {
                return desk.fail_output(format!("the response's body broke off: {error}"));
            }
        }
    }
}
