;; Answers what the body tells it to: the first word is the address that it returns, the words after it are
;; pairs of an address and what to write there. Without a body the answer is a sound one.
(module
  (memory (export "memory") 2)
  (data (i32.const 64) "MDGE\01\00\00\00\00\00\01\00\00\00\01\00")
  ;; The response at 1024: status 200, flags 0, one header at 2048, body of 3 bytes at 3104.
  (data (i32.const 1024) "\c8\00\00\00\01\00\00\00\00\08\00\00\20\0c\00\00\03\00\00\00")
  ;; The header table at 2048: name of 6 bytes at 3072, value of 5 bytes at 3088.
  (data (i32.const 2048) "\00\0c\00\00\06\00\00\00\10\0c\00\00\05\00\00\00")
  (data (i32.const 3072) "x-name")
  (data (i32.const 3088) "value")
  (data (i32.const 3104) "ok\0a")
  (func (export "midge_contract") (result i32) (i32.const 64))
  (func (export "midge_handle") (param $request i32) (param $size i32) (result i32)
    (local $at i32) (local $end i32)
    (if (i32.eqz (i32.load offset=68 (local.get $request))) (then (return (i32.const 1024))))
    (local.set $at (i32.add (local.get $request) (i32.load offset=64 (local.get $request))))
    (local.set $end (i32.add (local.get $at) (i32.load offset=68 (local.get $request))))
    (local.set $request (i32.load (local.get $at)))
    (local.set $at (i32.add (local.get $at) (i32.const 4)))
    (block $done (loop $next
      (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
      (i32.store (i32.load (local.get $at)) (i32.load offset=4 (local.get $at)))
      (local.set $at (i32.add (local.get $at) (i32.const 8)))
      (br $next)))
    (local.get $request)))
