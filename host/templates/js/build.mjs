// Makes the component: the JavaScript engine with app.js in it, run up to where the handler is ready.
import { componentize } from '@bytecodealliance/componentize-js';
import { readFileSync, writeFileSync } from 'node:fs';

const { component } = await componentize(readFileSync('app.js', 'utf8'), {
  witPath: 'wit',
  worldName: 'handler',
  disableFeatures: ['random', 'clocks', 'http', 'stdio', 'fetch-event'],
});
writeFileSync(process.argv[2], component);
