// Makes the component: the JavaScript engine with app.js in it, run up to where the handler is ready.
import { componentize } from '@bytecodealliance/componentize-js';
import { cpSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';

// The interfaces of WASI come with the compiler.
const builtin = 'node_modules/@bytecodealliance/jco/lib/wit/builtin/0.2.12';
const wit = 'node_modules/.wit';
mkdirSync(`${wit}/deps`, { recursive: true });
cpSync(builtin, `${wit}/deps`, { recursive: true });
writeFileSync(
  `${wit}/world.wit`,
  'package local:function;\nworld handler { include wasi:http/proxy@0.2.12; }\n',
);

const { component } = await componentize(readFileSync('app.js', 'utf8'), {
  witPath: wit,
  worldName: 'handler',
  disableFeatures: ['random', 'clocks', 'http', 'stdio', 'fetch-event'],
});
writeFileSync(process.argv[2], component);
