// Its default export stands below `default` for a bundler that reads Grafana's modules as Node does.
import * as found from './node_modules/react-custom-scrollbars-2/lib/index.js';

export default found.Scrollbars;
export const Scrollbars = found.Scrollbars;
