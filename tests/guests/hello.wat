;; Answers `hello` to everything.
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
  (func (export "midge_handle") (param i32 i32) (result i32) (i32.const 1024)))
