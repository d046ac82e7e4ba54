// A component of wasi:http: answers every request with what was asked.
import { Fields, OutgoingBody, OutgoingResponse, ResponseOutparam } from 'wasi:http/types@0.2.12';

const text = new TextEncoder();

export const incomingHandler = {
  handle(request, outparam) {
    const headers = Fields.fromList([['content-type', text.encode('text/plain; charset=utf-8')]]);
    const response = new OutgoingResponse(headers);
    const body = response.body();
    ResponseOutparam.set(outparam, { tag: 'ok', val: response });
    const output = body.write();
    output.blockingWriteAndFlush(text.encode(`hello from ${request.pathWithQuery()}\n`));
    output[Symbol.dispose]();
    OutgoingBody.finish(body, undefined);
  },
};
