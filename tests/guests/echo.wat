;; Answers a body with itself, and nothing with `hello`.
(module
  (memory (export "memory") 2)
  ;; The contract's record: magic, version 1, the area at 64 KiB, of 64 KiB.
  (data (i32.const 64) "MDGE\01\00\00\00\00\00\01\00\00\00\01\00")
  ;; The response: status 200, one header at 2048, body at 3104.
  (data (i32.const 1024) "\c8\00\00\00\01\00\00\00\00\08\00\00\20\0c\00\00\06\00\00\00")
  (data (i32.const 2048) "\00\0c\00\00\0c\00\00\00\10\0c\00\00\0a\00\00\00")
  (data (i32.const 3072) "content-type\00\00\00\00text/plain")
  (data (i32.const 3104) "hello\0a")
  (func (export "midge_contract") (result i32) (i32.const 64))
  (func (export "midge_handle") (param $request i32) (param $size i32) (result i32)
    (if (i32.load offset=68 (local.get $request)) (then
      (i32.store (i32.const 1036)
        (i32.add (local.get $request) (i32.load offset=64 (local.get $request))))
      (i32.store (i32.const 1040) (i32.load offset=68 (local.get $request)))))
    (i32.const 1024)))
