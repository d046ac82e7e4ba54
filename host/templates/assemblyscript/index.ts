// A function in the contract of midge: answers every request with what was asked.

// The request is written here; docs/manual/contract.md lays it out.
const AREA_SIZE: u32 = 65536;
const area = memory.data(AREA_SIZE as i32, 16);
const record = memory.data(16, 4);
const response = memory.data(32, 4);
const headers = memory.data(16, 4);
const name = memory.data<u8>([99, 111, 110, 116, 101, 110, 116, 45, 116, 121, 112, 101]); // content-type
const value = memory.data<u8>([116, 101, 120, 116, 47, 112, 108, 97, 105, 110]); // text/plain
const hello = memory.data<u8>([104, 101, 108, 108, 111, 32, 102, 114, 111, 109, 32]); // hello from
const body = memory.data(16384);

// Places in a request.
const TARGET: usize = 32;

export function midge_contract(): usize {
  store<u32>(record, 0x4547444d); // MDGE
  store<u32>(record + 4, 1);
  store<u32>(record + 8, area as u32);
  store<u32>(record + 12, AREA_SIZE);
  return record;
}

export function midge_handle(request: usize, size: u32): usize {
  const target = request + load<u32>(request + TARGET);
  const targetSize = min(load<u32>(request + TARGET + 4), 16000);
  memory.copy(body, hello, 11);
  memory.copy(body + 11, target, targetSize);
  store<u8>(body + 11 + targetSize, 10);

  store<u32>(headers, name as u32);
  store<u32>(headers + 4, 12);
  store<u32>(headers + 8, value as u32);
  store<u32>(headers + 12, 10);

  store<u32>(response, 200);
  store<u32>(response + 4, 1);
  store<u32>(response + 8, headers as u32);
  store<u32>(response + 12, body as u32);
  store<u32>(response + 16, 12 + targetSize);
  return response;
}
