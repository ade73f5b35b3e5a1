// The npm package rp2040js, which is installed outside of the sources: in the folder that
// EMULATOR_PACKAGES names, else in .cache/emulator of the project.

import { createRequire } from 'node:module';
import { join } from 'node:path';

const folder = process.env.EMULATOR_PACKAGES;
const here = new URL('../../../.cache/emulator/package.json', import.meta.url);
const require = createRequire(folder ? join(folder, 'package.json') : here);

export const { BasePeripheral, ConsoleLogger, LogLevel, RP2040, USBCDC } = require('rp2040js');
